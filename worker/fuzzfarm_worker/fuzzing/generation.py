"""Addressed examples: what a strategy generates for (seed, index), what stored choices replay, and their shrinking.

This is the only module that touches the internals of Hypothesis. Its tests run at both ends of the supported range
and fail when one of these names moves.

Hypothesis draws every example from a sequence of choices (MacIver and Donaldson, "Test-Case Reduction via Test-Case
Generation: Insights from the Hypothesis Reducer", ECOOP 2020). Seeding that sequence from (seed, index) makes an
example a pure function of its address, so any host can generate it again and no two hosts need to agree on anything.
"""

from __future__ import annotations

import random
import sys
import time
import unittest
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from hashlib import blake2b
from random import Random
from typing import Any, cast

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis._settings import local_settings
from hypothesis.control import BuildContext
from hypothesis.core import encode_failure, get_executor
from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase, choices_from_bytes, choices_to_bytes
from hypothesis.errors import HypothesisException, StopTest, UnsatisfiedAssumption
from hypothesis.internal.conjecture import providers
from hypothesis.internal.conjecture.choice import choices_key
from hypothesis.internal.conjecture.data import MAX_DEPTH, ConjectureData, Status
from hypothesis.internal.conjecture.engine import ConjectureRunner, RunIsComplete
from hypothesis.internal.conjecture.shrinker import sort_key
from hypothesis.internal.constants_ast import Constants
from hypothesis.internal.floats import float_to_int, int_to_float
from hypothesis.internal.reflection import function_digest
from hypothesis.reporting import with_reporter
from hypothesis.strategies import SearchStrategy
from hypothesis.strategies import data as interactive_data
from hypothesis.strategies._internal.lazy import unwrap_strategies
from hypothesis.vendor.pretty import RepresentationPrinter
from hypothesis.version import __version__ as hypothesis_version

__all__ = [
    "Drawn",
    "Explicit",
    "Generator",
    "Invalid",
    "announce_rules",
    "call_source",
    "draws_while_running",
    "encoded",
    "explicit_examples",
    "fingerprint",
    "fingerprint_of",
    "given_strategies",
    "hypothesis_version",
    "inner_test",
    "is_hypothesis_test",
    "leave_random_alone",
    "machine_test",
    "open_database",
    "pin_constants",
    "raise_if_invalid",
    "reproduce_line",
    "save_choices",
    "size",
    "state_machine",
    "test_settings",
]

NO_CONSTANTS = Constants()

_SEEDS_RANDOM: ContextVar[bool] = ContextVar("seeds_random", default=True)
"""Whether examples may seed the global generators: not in a process that others use at the same time."""


class Invalid(Exception):  # noqa: N818  # not an error: the example is no example of the target
    """The target, or its strategy, rejected this example (`assume`, a filter, a skip)."""


class _OutOfTime(BaseException):
    """Ends a shrink; a BaseException, so that no target swallows it."""


@dataclass(frozen=True, slots=True)
class Explicit:
    """An `@example` of a test.

    Attributes:
        kwargs: the arguments by name.
        raises: exceptions that it is expected to raise (`@example(...).xfail()`), or ().
    """

    kwargs: dict[str, Any]
    raises: tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One generated example, before or after the target saw it.

    Attributes:
        data: the engine's record of it; opaque to other modules.
        arguments: the drawn value of each parameter.
    """

    data: ConjectureData
    arguments: dict[str, Any]


class LeanData(ConjectureData):
    """An example that keeps its choices and nothing else.

    A plain one also records which strategy drew which of them, for the shrinker, which draws its examples anew. Without
    that a large example takes half the time. What is drawn is the same.
    """

    def __init__(self, random: Random) -> None:
        self._values: list[Any] = []
        super().__init__(random=random)

    @property
    def choices(self) -> tuple[Any, ...]:
        """What was drawn."""
        return tuple(self._values)

    def draw(self, strategy: Any, label: int | None = None, observe_as: str | None = None) -> Any:
        """Draw from a strategy; the outermost draw is a plain one, which names the argument in errors."""
        if self.depth <= 0:
            return super().draw(strategy, label, observe_as)
        if strategy.is_empty or self.depth >= MAX_DEPTH:
            self.mark_invalid("empty strategy, or one inside itself without an end")
        unwrapped: Any = unwrap_strategies(strategy)  # type: ignore[no-untyped-call]
        if not unwrapped.validate_called:
            strategy.validate()
        self.depth += 1
        try:
            return unwrapped.do_draw(self)
        finally:
            self.depth -= 1

    def start_span(self, label: int) -> None:  # noqa: ARG002 - as in the base
        """Count a level."""
        self.depth += 1

    def stop_span(self, *, discard: bool = False) -> None:  # noqa: ARG002 - as in the base
        """Leave a level."""
        if not self.frozen:
            self.depth -= 1

    def _pooled_constraints(self, choice_type: Any, constraints: Any) -> Any:  # noqa: ARG002 - as in the base
        return constraints  # they are not kept

    def _draw(self, choice_type: Any, constraints: Any, *, observe: bool, forced: Any) -> Any:
        value = forced if forced is not None else getattr(self.provider, _DRAW[choice_type])(**constraints)
        if value != value:  # noqa: PLR0124 - of floats only NaN: no two that a target sees may be the same object
            value = int_to_float(float_to_int(value))
        if observe:
            self.length += _size_of(value)
            self._values.append(value)
            if self.length > self.max_length:
                self.mark_overrun()
        return value


def _size_of(value: Any) -> int:
    """Return about how many bytes a choice takes; by our own rule, so that it is the same in all versions."""
    kind = type(value)
    if kind is bool:
        return 1
    if kind is int:
        return int(2 + value.bit_length() // 8)
    return 9 if kind is float else 2 + len(value)


_DRAW = {kind: f"draw_{kind}" for kind in ("integer", "float", "string", "bytes", "boolean")}


def pin_constants() -> None:
    """Keep constants of locally imported modules out of generation; call it once, before the first example.

    Hypothesis mixes them in, so one more import would change every example of an address.
    """
    providers._get_local_constants = lambda: NO_CONSTANTS  # noqa: SLF001
    providers.CONSTANTS_CACHE.cache.clear()


def leave_random_alone() -> None:
    """Never seed the global generators of random numbers in this thread: they are not its own."""
    _SEEDS_RANDOM.set(False)


def _seed_random() -> None:
    random.seed(0)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(0)


def is_hypothesis_test(function: object) -> bool:
    """Return whether `@given` made this function."""
    return getattr(function, "is_hypothesis_test", False) is True


def state_machine(found: object) -> type[Any] | None:
    """Return the machine class of a `RuleBasedStateMachine`, its `TestCase`, or the method of that; None for others."""
    stateful = sys.modules.get("hypothesis.stateful")
    if stateful is None:  # then nothing that was imported has made one
        return None
    if isinstance(found, type) and issubclass(found, stateful.RuleBasedStateMachine):
        return found
    method = getattr(found, "runTest", None) if isinstance(found, type) else found
    return cast("type[Any] | None", getattr(method, "_hypothesis_state_machine_class", None))


def machine_test(machine: type[Any], in_settings: settings) -> Callable[..., None]:
    """Return the Hypothesis test that runs a state machine.

    Raises:
        HypothesisException: when no machine can be made of the class, such as one without rules.
    """
    stateful = sys.modules["hypothesis.stateful"]
    try:
        machine()
    except Exception as exc:  # what its own code raises is a finding, when examples run
        if isinstance(exc, HypothesisException):
            raise
    return cast("Callable[..., None]", stateful.get_state_machine_test(machine, settings=in_settings))


def announce_rules(machine: Any, tell: Callable[[str], None]) -> None:
    """Have every rule of a machine tell its step before it runs; for good, so do it in a process that ends soon.

    Hypothesis reports a step when it has ended, which a step that ends its interpreter never has.
    """
    state = machine.setup_state()
    for rule in (*state.rules, *state.initializers):
        rule.function = _announced(rule.function, tell)


def _announced(function: Callable[..., Any], tell: Callable[[str], None]) -> Callable[..., Any]:
    @wraps(function)
    def announced(machine: Any, **values: Any) -> Any:
        shown = ", ".join(f"{name}={machine._pretty_print(value)}" for name, value in values.items())  # noqa: SLF001
        tell(f"state.{function.__name__}({shown})")
        return function(machine, **values)

    return announced


def draws_while_running(strategies: Mapping[str, SearchStrategy[Any]]) -> bool:
    """Return whether a test with these strategies draws while it runs (`st.data()`), as far as they tell."""
    return any(isinstance(strategy, type(interactive_data())) for strategy in strategies.values())


def raise_if_invalid(test: Any) -> None:
    """Raise what a test raises that `@given` could not be applied to, such as an argument that it does not have.

    Raises:
        HypothesisException: with the reason.
    """
    if not hasattr(test, "_hypothesis_internal_use_settings"):
        test()


def inner_test(test: Any) -> Callable[..., Any]:
    """Return the function that `@given` wraps."""
    return cast("Callable[..., Any]", test.hypothesis.inner_test)


def given_strategies(test: Any) -> dict[str, SearchStrategy[Any]]:
    """Return the strategies that `@given` was called with, by parameter."""
    return dict(test.hypothesis._given_kwargs)  # noqa: SLF001


def test_settings(test: Any) -> settings:
    """Return the settings of a Hypothesis test."""
    return cast("settings", test._hypothesis_internal_use_settings)  # noqa: SLF001


def explicit_examples(test: Any, parameters: Sequence[str]) -> list[Explicit]:
    """Return the `@example`s of a test in the order in which they are written.

    Args:
        test: a Hypothesis test.
        parameters: names of the parameters of the test it wraps; positional examples fill them from the right.
    """
    if Phase.explicit not in test_settings(test).phases:
        return []
    return [
        Explicit(
            dict(zip(parameters[-len(given.args) :], given.args, strict=False)) if given.args else dict(given.kwargs),
            tuple(given.raises) if isinstance(given.raises, tuple) else (given.raises,) if given.raises else (),
        )
        for given in reversed(getattr(test, "hypothesis_explicit_examples", ()))
    ]


def _skips() -> tuple[type[BaseException], ...]:
    outcomes = sys.modules.get("_pytest.outcomes")
    return (unittest.SkipTest, *((outcomes.Skipped, outcomes.XFailed) if outcomes else ()))


class Generator:
    """Draws and runs examples of one target."""

    def __init__(
        self,
        function: Callable[..., Any],
        strategies: Mapping[str, SearchStrategy[Any]],
        *,
        runner: object = None,
        in_settings: settings | None = None,
    ) -> None:
        """Make a generator; nothing is drawn yet.

        Args:
            function: the target, for the names in reports.
            strategies: one for each parameter that is generated, in drawing order.
            runner: the instance whose `setup_example` and `execute_example` wrap each example, and `st.runner()`.
            in_settings: the settings that code under test sees.

        Attributes:
            interactive: whether the target is known to draw while it runs, so that its arguments do not tell its
                examples apart.
        """
        self.function = function
        self._strategies = dict(strategies)
        self.interactive = draws_while_running(strategies)
        self._runner = runner
        self._executor = get_executor(runner)  # type: ignore[no-untyped-call]
        self._settings = settings(in_settings, deadline=None, database=None, verbosity=Verbosity.normal)
        self._random = Random(0)  # reseeded for each example, which costs half of making one
        self.rejections: tuple[type[BaseException], ...] = (StopTest, UnsatisfiedAssumption, *_skips())

    def empty(self) -> str | None:
        """Return the name of a parameter whose strategy has no values, or None."""
        return next((name for name, strategy in self._strategies.items() if strategy.is_empty), None)

    def at(self, seed: int, index: int) -> ConjectureData:
        """Return the undrawn example of an address."""
        digest = blake2b(b"%d:%d" % (seed, index), digest_size=16).digest()
        self._random.seed(int.from_bytes(digest, "big"))
        return LeanData(random=self._random)

    def stored(self, choices: bytes) -> ConjectureData:
        """Return the undrawn example of encoded choices.

        Raises:
            ValueError: when these bytes are no choices.
        """
        return ConjectureData.for_choices(_decoded(choices))

    def session(self) -> AbstractContextManager[object]:
        """Let examples run inside: the target sees its own settings."""
        return local_settings(self._settings)

    def run(
        self, data: ConjectureData, call: Callable[[Drawn], None], *, final: bool = False, draw: bool = True
    ) -> None:
        """Draw the arguments and give them to `call`, inside everything that Hypothesis' own functions need.

        Args:
            data: from `at` or `stored`.
            call: runs the target; what it raises comes out of here.
            final: whether `note` and interactive draws report what they see.
            draw: False for an example whose arguments are given.

        Raises:
            Invalid: the example was rejected.
        """
        if _SEEDS_RANDOM.get():
            _seed_random()  # a target that uses the global generator behaves the same each time
        try:
            with BuildContext(data, is_final=final, wrapped_test=self.function):
                if self._runner is not None:
                    data.hypothesis_runner = self._runner
                self._executor(data, lambda data: call(Drawn(data, self._draw(data) if draw else {})))
        except self.rejections as exc:
            raise Invalid(str(exc)) from None
        except BaseException:
            if data.frozen:  # a `finally` of the target raised while the example was being rejected
                raise Invalid("rejected") from None
            raise
        if data.frozen:
            raise Invalid("rejected")

    def _draw(self, data: ConjectureData) -> dict[str, Any]:
        return {name: data.draw(strategy, observe_as=f"generate:{name}") for name, strategy in self._strategies.items()}

    def source(self, data: ConjectureData, name: str, bind: Callable[[dict[str, Any]], Any]) -> str:
        """Return the call of the target as Python source; the target is not called.

        Args:
            data: an undrawn example.
            name: the name to call it by.
            bind: turns drawn arguments into (args, kwargs).
        """
        with BuildContext(data, wrapped_test=self.function) as context:
            args, kwargs = bind(self._draw(data))
            return call_source(name, args, kwargs, context)

    def report(self, data: ConjectureData, call: Callable[[Drawn], None], tell: Callable[[str], None]) -> None:
        """Run an example as the final one and tell what `note`, interactive draws and steps report, as it comes."""
        with self.session(), with_reporter(lambda line: tell(str(line))):
            try:
                self.run(data, call, final=True)
            except BaseException:  # noqa: BLE001  # it is known to fail; only what it reports is asked for
                return

    def shrink(
        self,
        choices: bytes,
        call: Callable[[Drawn], None],
        same: Callable[[BaseException], bool],
        *,
        proceed: Callable[[], bool],
        found: Callable[[bytes], None] = lambda _smaller: None,
        budget_s: float,
    ) -> bytes:
        """Return the smallest choices found within the budget that still fail in the same way.

        Args:
            choices: of a failing example.
            call: runs the target.
            same: whether an exception is the failure that is being shrunk.
            proceed: called before each run, for the flight recorder; False ends it.
            found: is told choices that fail in the same way: first those of the example, then smaller and smaller ones.
            budget_s: seconds for all of it; one run may overstep it.
        """
        best = choices
        least: tuple[Any, ...] | None = None
        deadline = time.monotonic() + budget_s

        def attempt(data: ConjectureData) -> None:
            nonlocal best, least
            if time.monotonic() > deadline or not proceed():
                raise _OutOfTime
            try:
                self.run(data, call)
            except Invalid:
                if not data.frozen:
                    data.mark_invalid()
            except BaseException as exc:  # noqa: BLE001  # SystemExit and the like are failures here
                if same(exc):
                    if least is None or sort_key(data.nodes) < least:
                        best, least = choices_to_bytes(data.choices), sort_key(data.nodes)
                        found(best)
                    data.mark_interesting("failure")  # type: ignore[arg-type]  # the engine only compares it

        runner = ConjectureRunner(attempt, settings=_SHRINK_SETTINGS, random=Random(0), ignore_limits=True)
        try:
            first = runner.cached_test_function(choices_from_bytes(choices) or ())
            if first.status is Status.INTERESTING:
                runner.shrink(cast("Any", first), lambda data: data.status is Status.INTERESTING)
        except (_OutOfTime, RunIsComplete, HypothesisException):
            pass  # no time, small enough, or flaky, also by being stopped: the smallest so far it is
        return best


_SHRINK_SETTINGS = settings(
    database=None,
    deadline=None,
    phases=[Phase.shrink],
    suppress_health_check=cast("list[HealthCheck]", list(HealthCheck)),
    verbosity=Verbosity.quiet,
)


def call_source(name: str, args: Sequence[Any], kwargs: dict[str, Any], context: BuildContext | None = None) -> str:
    """Return `name(args, kwargs)` as Python source, with generated objects shown as the calls that make them."""
    printer = RepresentationPrinter(context=context)
    printer.repr_call(name, tuple(args), kwargs)
    return printer.getvalue()


def _decoded(choices: bytes) -> Sequence[Any]:
    decoded = choices_from_bytes(choices)
    if decoded is None:
        raise ValueError("these bytes are no encoded choices: the finding is damaged, find it again")
    return decoded


def encoded(data: ConjectureData) -> bytes:
    """Return the choices of an example, encoded as Hypothesis' own database does."""
    return choices_to_bytes(data.choices)


def reproduce_line(choices: bytes, version: str) -> str:
    """Return the decorator with which a test runs these choices, and nothing else, under a version of Hypothesis."""
    return f"@reproduce_failure({version!r}, {encode_failure(_decoded(choices))!r})"


def open_database(place: str) -> ExampleDatabase:
    """Return a database of examples: in a folder, or on a server where `place` is an address of Redis."""
    if place.startswith(("redis://", "rediss://", "unix://")):
        from hypothesis.extra.redis import RedisExampleDatabase  # noqa: PLC0415  # rarely needed
        from redis import Redis  # noqa: PLC0415

        return RedisExampleDatabase(Redis.from_url(place))
    return DirectoryBasedExampleDatabase(place)


def save_choices(database: ExampleDatabase, inner_test: Callable[..., Any], choices: bytes) -> None:
    """Have a Hypothesis test run these choices first when it is run with that database."""
    database.save(function_digest(inner_test), choices_to_bytes(_decoded(choices)))


def size(data: ConjectureData) -> int:
    """Return how much was drawn so far."""
    return data.length


def fingerprint(data: ConjectureData) -> int:
    """Return a hash that differs for examples that differ; equal in all children, which share one hash seed."""
    return hash(choices_key(data.choices))


def fingerprint_of(choices: bytes) -> int:
    """Return the fingerprint that an example with these encoded choices has in this process."""
    return hash(choices_key(tuple(_decoded(choices))))
