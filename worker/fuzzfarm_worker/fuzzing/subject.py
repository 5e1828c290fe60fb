"""Subjects: a target that was imported, with what is needed to generate its arguments and to call it.

A target is an unmodified Hypothesis test, also one of a state machine, a callable with type hints, or a callable
with a named strategy, or with inputs of a kind that a word tells. A command is a callable of ours that runs it.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import unittest
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast, get_type_hints

from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.strategies import SearchStrategy, from_type

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.targets import check_home, import_target
from fuzzfarm_worker.fuzzing.commands import Command, as_bytes
from fuzzfarm_worker.fuzzing.cpu import CpuLimit
from fuzzfarm_worker.fuzzing.generation import (
    Drawn,
    Explicit,
    Generator,
    Invalid,
    announce_rules,
    explicit_examples,
    given_strategies,
    inner_test,
    is_hypothesis_test,
    machine_test,
    raise_if_invalid,
    state_machine,
    test_settings,
)
from fuzzfarm_worker.fuzzing.made_inputs import made_inputs
from fuzzfarm_worker.fuzzing.words import Program, is_name, told_inputs, told_program

RUN_TEST = "runTest"
"""The method of the `TestCase` of a state machine."""

VALUE = "value"
"""Name of what a named strategy draws: all arguments at once."""

TRIES = 5
"""Examples that must all raise while they are drawn before a strategy counts as broken."""

Bound = tuple[list[Any], dict[str, Any]]


@dataclass(slots=True)
class Subject:
    """An imported target.

    Attributes:
        target: its name, "module:qualname".
        function: what is called, unbound.
        generator: draws its arguments.
        bind: turns drawn arguments into positional and keyword arguments, without the instance.
        instance: what a test method is called on, or None.
        explicit: examples that the test itself lists; they have the first indices.
        from_test: whether the target is a Hypothesis test.
        machine: the state machine that it runs, or None.
        program: the program that it runs, or "".
        command: what runs that program, or None.
    """

    target: str
    function: Callable[..., Any]
    generator: Generator
    bind: Callable[[dict[str, Any]], Bound]
    instance: object = None
    explicit: list[Explicit] = field(default_factory=list)
    from_test: bool = False
    machine: type[Any] | None = None
    program: str = ""
    command: Command | None = None
    _loop: asyncio.Runner | None = None

    @property
    def name(self) -> str:
        """The name a reader would call it by."""
        return self.program or self.target.rpartition(":")[2]

    def given(self, arguments: dict[str, Any]) -> bytes | None:
        """Return what a command is given as its input; None for another target.

        Raises:
            TypeError: when it cannot be given that.
        """
        return as_bytes(arguments[VALUE]) if self.program else None

    def limit_cpu(self, limit: CpuLimit) -> None:
        """Hold the program that it runs, if any, to this limit each time: it does not count what this process used."""
        if self.command is not None:
            self.command.cpu_limit = limit

    def announce_steps(self, tell: Callable[[str], None]) -> None:
        """Have a state machine tell its steps before they run; for good, so do it in a process that ends soon."""
        if self.machine is not None:
            announce_rules(self.machine, tell)

    def call(self, arguments: dict[str, Any]) -> None:
        """Call the target; an awaitable result is awaited."""
        args, kwargs = self.bind(arguments)
        if self.instance is not None:
            args = [self.instance, *args]
        result = self.function(*args, **kwargs)
        if result is not None and inspect.isawaitable(result):
            self._await(result)

    def call_drawn(self, drawn: Drawn) -> None:
        """Call the target with generated arguments."""
        self.call(drawn.arguments)

    def call_explicit(self, explicit: Explicit) -> None:
        """Call the target with the arguments of one of its own examples."""
        try:
            self.call(explicit.kwargs)
        except explicit.raises:
            return

    def close(self) -> None:
        """Close the loop in which it was awaited, if any; only for a target whose process goes on."""
        if self._loop is not None:
            self._loop.close()

    def _await(self, awaitable: Awaitable[Any]) -> None:
        if self._loop is None:
            self._loop = asyncio.Runner()

        async def wait() -> None:
            await awaitable

        self._loop.run(wait())


def check_own(name: str) -> None:
    """Raise TargetError unless what `name` imports is of its own module, or is a strategy, which is only a value.

    A word that names nothing, because it tells inputs, is nobody's.
    """
    if not is_name(name):
        return
    found = import_target(name)
    if not isinstance(found, SearchStrategy):
        check_home(name, state_machine(found) or found)


def load(target: str, strategy: str | None) -> Subject:
    """Import a target and find out how to generate its arguments.

    Args:
        target: its name.
        strategy: the word that tells what makes its arguments (see `words`); None: the target itself.

    Raises:
        TargetError: when there is no such target, or nothing can be generated for it; the message says what to do.
    """
    program = told_program(target)
    try:
        subject = _imported(target, strategy) if program is None else _command(program, strategy)
        _try_some(subject)
    except HypothesisException as exc:
        raise TargetError(
            target, f"no examples can be generated for {target!r}: {exc}; repair its strategy or its type hints"
        ) from exc
    return subject


def _command(program: Program, strategy: str | None) -> Subject:
    """Return the subject of a command; one that has its input has it as its first example, and gets no others."""
    path = program.command[0]
    if not os.access(path, os.X_OK):
        raise TargetError(program.name, f"{path!r} is no program that can be started: check the command")
    explicit = [] if program.input is None else [Explicit({VALUE: program.input}, ())]
    found = st.binary() if strategy is None else _strategy(program.name, strategy)
    command = Command(program)
    generator = Generator(command.run, {VALUE: found})
    name = os.path.basename(path)
    return Subject(program.name, command.run, generator, _alone, explicit=explicit, program=name, command=command)


def _imported(target: str, strategy: str | None) -> Subject:
    function = import_target(target)
    if not callable(function):
        raise TargetError(target, f"{target!r} is {type(function).__name__}, not a function: name a callable")
    return _subject(target, function, strategy)


def _subject(target: str, function: Callable[..., Any], strategy: str | None) -> Subject:
    if (machine := state_machine(function)) is not None:
        return _machine(target, machine, strategy)
    instance = _instance(target)
    if is_hypothesis_test(function):
        _set_up_module(target, function, is_method=instance is not None)
        return _given(target, function, instance, strategy)
    if strategy is not None:
        return _supplied(target, function, instance, _strategy(target, strategy))
    return _hinted(target, function, instance)


def _instance(target: str) -> object:
    module, _, qualname = target.partition(":")
    owner, _, method = qualname.rpartition(".")
    if not owner:
        return None
    cls = import_target(f"{module}:{owner}")
    if not inspect.isclass(cls) or isinstance(inspect.getattr_static(cls, method), staticmethod | classmethod):
        return None
    return _set_up(target, cls, method)


def _set_up(target: str, cls: type[Any], method: str) -> object:
    """Make the instance and prepare it once, as a test runner does before a Hypothesis test."""
    try:
        if issubclass(cls, unittest.TestCase):
            instance: Any = cls(method)
            cls.setUpClass()
            instance.setUp()
            return instance
        instance = cls()
        for hook, argument in (("setup_class", None), ("setup_method", getattr(cls, method))):
            _call_hook(getattr(instance, hook, None), argument)
        return cast("object", instance)
    except Exception as exc:
        raise TargetError(
            target, f"cannot set up {cls.__name__} for {target!r}: {type(exc).__name__}: {exc}; use a plain function"
        ) from exc


def _set_up_module(target: str, test: Callable[..., Any], *, is_method: bool) -> None:
    """Prepare the module once, as a test runner does."""
    module = importlib.import_module(target.partition(":")[0])
    hooks = [("setUpModule", module), ("setup_module", module), *([] if is_method else [("setup_function", test)])]
    try:
        for hook, argument in hooks:
            _call_hook(getattr(module, hook, None), argument)
    except Exception as exc:
        raise TargetError(
            target, f"cannot set up the module of {target!r}: {type(exc).__name__}: {exc}; fuzz it without"
        ) from exc


def _call_hook(hook: Callable[..., Any] | None, argument: object) -> None:
    if hook is not None:
        hook(*([argument] if _parameters(hook) else []))


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in inspect.signature(function).parameters.values() if p.kind not in kinds]


def _required(target: str, function: Callable[..., Any], instance: object) -> list[inspect.Parameter]:
    """Return the parameters without a default, the instance's own left out."""
    try:
        parameters = _parameters(function)
    except (ValueError, TypeError) as exc:
        raise TargetError(
            target, f"{target!r} does not tell its parameters: wrap it in a function with type hints and fuzz that"
        ) from exc
    return [p for p in parameters[instance is not None :] if p.default is inspect.Parameter.empty]


def _machine(target: str, machine: type[Any], strategy: str | None) -> Subject:
    _refuse_strategy(target, strategy)
    named = import_target(target.removesuffix(f".{RUN_TEST}"))
    case = cast("Any", machine).TestCase if named is machine else named
    _set_up(target, case, RUN_TEST)
    test = machine_test(machine, case.settings)
    function = inner_test(test)
    generator = Generator(function, given_strategies(test), in_settings=test_settings(test))
    return Subject(target, function, generator, _by_name, from_test=True, machine=machine)


def _refuse_strategy(target: str, strategy: str | None) -> None:
    if strategy is not None:
        raise TargetError(
            target, f"{target!r} is a Hypothesis test with strategies of its own: leave strategy and inputs out"
        )


def _given(target: str, test: Callable[..., Any], instance: object, strategy: str | None) -> Subject:
    _refuse_strategy(target, strategy)
    raise_if_invalid(test)
    if missing := [p.name for p in _required(target, test, instance)]:
        raise TargetError(
            target,
            f"{target!r} needs {', '.join(missing)}, which @given does not supply (fixtures or parametrize?): "
            "fuzz a test whose arguments all come from @given",
        )
    function = inner_test(test)
    names = [p.name for p in _parameters(function) if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    generator = Generator(function, given_strategies(test), runner=instance, in_settings=test_settings(test))
    return Subject(target, function, generator, _by_name, instance, explicit_examples(test, names), from_test=True)


def _supplied(target: str, function: Callable[..., Any], instance: object, found: SearchStrategy[Any]) -> Subject:
    """Return the subject of a callable whose arguments a strategy makes, all at once."""
    try:
        several = len(_required(target, function, instance)) > 1
    except TargetError:
        several = False  # a built-in that tells nothing gets the value as its one argument
    generator = Generator(function, {VALUE: found}, runner=instance)
    return Subject(target, function, generator, _spread if several else _alone, instance)


def _strategy(target: str, word: str) -> SearchStrategy[Any]:
    try:
        if (inputs := told_inputs(word)) is not None:
            return made_inputs(inputs)
    except ValueError as exc:
        raise TargetError(target, f"no inputs can be made for {target!r}: {exc}") from exc
    return _named(word)


def _named(strategy: str) -> SearchStrategy[Any]:
    found = import_target(strategy)
    if callable(found) and not isinstance(found, SearchStrategy):
        found = _made(strategy, found)
    if not isinstance(found, SearchStrategy):
        raise TargetError(
            strategy,
            f"{strategy!r} is {type(found).__name__}: name a Hypothesis strategy, or a function that makes one",
        )
    return found


def _made(strategy: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as exc:
        raise TargetError(
            strategy, f"{strategy!r} could not be called for a strategy: {type(exc).__name__}: {exc}"
        ) from exc


def _hinted(target: str, function: Callable[..., Any], instance: object) -> Subject:
    required = _required(target, function, instance)
    if not required:
        raise TargetError(
            target,
            f"{target!r} has no required parameter, so there is nothing to generate: "
            "name a function that takes the input, or give a strategy",
        )
    hints = _hints(target, function)
    if missing := [p.name for p in required if p.name not in hints]:
        raise TargetError(
            target,
            f"parameter {missing[0]!r} of {target!r} has no type hint: "
            "add one, name a strategy with strategy='module:name', or say what is generated with inputs='text'",
        )
    positional = [p.name for p in required if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    strategies = {p.name: from_type(hints[p.name]) for p in required}

    def bind(arguments: dict[str, Any]) -> Bound:
        return [arguments[name] for name in positional], {k: v for k, v in arguments.items() if k not in positional}

    generator = Generator(function, strategies, runner=instance)
    return Subject(target, function, generator, bind if positional else _by_name, instance)


def _hints(target: str, function: Callable[..., Any]) -> dict[str, Any]:
    described = function.__init__ if inspect.isclass(function) else function
    if not inspect.isroutine(described):
        described = type(function).__call__
    try:
        return get_type_hints(described)
    except Exception as exc:
        raise TargetError(
            target, f"the type hints of {target!r} cannot be read: {type(exc).__name__}: {exc}; repair them"
        ) from exc


def _by_name(arguments: dict[str, Any]) -> Bound:
    return [], arguments


def _alone(arguments: dict[str, Any]) -> Bound:
    return [arguments[VALUE]], {}


def _spread(arguments: dict[str, Any]) -> Bound:
    value = arguments[VALUE]
    if isinstance(value, dict):
        return [], value
    return (list(value), {}) if isinstance(value, list | tuple) else ([value], {})


def _try_some(subject: Subject) -> None:
    """Draw some examples and drop them, so that a strategy that cannot work is named before anything runs.

    Raises:
        TargetError: when a strategy is empty, or drawing always raises.
    """
    error: Exception | None = None
    for index in range(TRIES):
        error = _drawing_error(subject, index)
        if error is None:
            return
    raise TargetError(
        subject.target,
        f"generating inputs for {subject.target!r} always raises {type(error).__name__}: {error}; "
        "repair its type hints or strategy",
    ) from error


def _drawing_error(subject: Subject, index: int) -> Exception | None:
    """Return what drawing an example raises; one that does not always raise becomes a finding when it runs."""
    try:
        _refuse_empty(subject)
        drawn: list[Drawn] = []
        subject.generator.run(subject.generator.at(0, index), drawn.append)
        subject.given(drawn[0].arguments)
    except Invalid:
        return None
    except (HypothesisException, TargetError):
        raise
    except Exception as exc:  # noqa: BLE001  # code of the user, inside a strategy
        return exc
    return None


def _refuse_empty(subject: Subject) -> None:
    if name := subject.generator.empty():
        raise TargetError(subject.target, f"the strategy for {name!r} of {subject.target!r} is empty: widen it")
