"""Shards: a range of examples of one fuzz operation, run by children, told in parts while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, Protocol

from fuzzfarm_shared.merging import combine
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding, FuzzResult
from fuzzfarm_worker.fuzzing.deaths import death_failure
from fuzzfarm_worker.fuzzing.interpreter import Death, Interpreter, raise_if_broken
from fuzzfarm_worker.fuzzing.recorder import Cell
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.fuzzing.starvation import waited_for_processor_ns
from fuzzfarm_worker.fuzzing.words import as_told, target_of

MAX_SKIPPED = 1_000
"""Killing examples that a shard remembers, so that a repeated one does not cost another child."""

MAX_IDLE_DEATHS = 3
"""Children that may die between two examples before we give up: it is not the examples then."""

IDLE_TIMEOUT_S = 10.0
"""Longest time that a child may run no example during a run: it only sends messages then."""

NS = 1_000_000_000


class Ran(Protocol):
    """What ran an example, with the versions of its Python and its Hypothesis."""

    @property
    def python(self) -> str:
        """That of its Python."""
        ...

    @property
    def hypothesis(self) -> str:
        """That of its Hypothesis."""
        ...


class State(Enum):
    """What a child does for a shard."""

    RUNNING = auto()
    DONE = auto()
    HUNG = auto()
    DEAD = auto()


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """What happened since the progress before it.

    Attributes:
        next_index: the first example of the shard that is not done; all before it are in this or an earlier result.
        result: examples, findings and seconds since the last progress, to be added up with `merge`.
    """

    next_index: int
    result: FuzzResult


@dataclass(slots=True)
class Shard:
    """The state of one shard while it runs.

    Attributes:
        operation: what is fuzzed, as children are told it.
        next_index: the first example that is not done.
        stop: the index after the last one.
        deadline_s: seconds of running after which no example starts, or None.
        owner: for whom it runs, which recorders name should the worker die.
    """

    operation: FuzzOperation
    next_index: int
    stop: int
    deadline_s: float | None
    owner: str = ""
    clock: Callable[[], float] = time.time
    _deadline_ns: int = 0
    _skip: list[int] = field(default_factory=list)
    _idle_deaths: int = 0
    _idle_since: float = 0.0
    _told: int = -1
    _told_at: float = field(default_factory=time.monotonic)
    _running_since: float | None = None
    _ran_s: float = 0.0
    _base: tuple[int, int] = (0, 0)
    _watched: tuple[int, int] = (0, 0)
    _invalid: int = 0
    _distinct: int = 0
    _replaced: int = 0
    _findings: dict[str, Finding] = field(default_factory=dict)
    _known: dict[str, Finding] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count from the first example."""
        self.operation = as_told(self.operation)
        self._told = self.next_index

    @property
    def unfinished(self) -> bool:
        """Whether there are examples left, and time for them."""
        out_of_time = self._deadline_ns and time.monotonic_ns() >= self._deadline_ns
        return self.next_index < self.stop and not out_of_time

    def begin(self, child: Interpreter) -> None:
        """Have a loaded, idle child go on with the shard."""
        if self.deadline_s is not None and not self._deadline_ns:
            self._deadline_ns = time.monotonic_ns() + int(self.deadline_s * NS)
        self._base = (0, 0)
        self._idle_since = self._running_since = time.monotonic()
        child.begin(
            seed=self.operation.seed,
            start=self.next_index,
            stop=self.stop,
            deadline_ns=self._deadline_ns,
            owner=self.owner,
            stateless=self.operation.stateless,
            skip=self._skip,
            known=[
                {"id": finding.id, "signature": finding.signature, "choices": finding.choices}
                for finding in self._known.values()
            ],
        )

    def end_soon(self, child: Interpreter | None) -> None:
        """Start no further example, as at the deadline.

        Args:
            child: the one that runs examples now, if any.
        """
        self._deadline_ns = time.monotonic_ns()
        if child is not None:
            child.recorder.cells[Cell.DEADLINE] = self._deadline_ns

    def poll(self, child: Interpreter) -> State:
        """Take in what the child has done so far and say what it does now."""
        dead = child.dead
        # The child sends what it has to say about an example before it counts it, so reading in the other order
        # never counts an example whose failure is not here yet.
        self._count(child)
        child.channel.drain()
        while (message := child.channel.pop()) is not None:
            if raise_if_broken(message)[0] == "done":
                self._count(child)
                self._pause()
                return State.DONE
            self._take_in(message, child)
        if dead:
            self._pause()
            return State.DEAD
        return State.HUNG if self._hangs(child) else State.RUNNING

    def _count(self, child: Interpreter) -> None:
        cells = child.recorder.cells
        self.next_index = cells[Cell.TAKEN_IN] = max(self.next_index, cells[Cell.NEXT])
        invalid, distinct = cells[Cell.INVALID], cells[Cell.DISTINCT]
        self._invalid += invalid - self._base[0]
        self._distinct += distinct - self._base[1]
        self._base = (invalid, distinct)

    def _take_in(self, message: Any, child: Interpreter) -> None:
        match message:
            case ["failure", dict(failure), int(count)]:
                self._add(self.finding(failure, child, count))
            case ["again", str(identifier)]:
                self._again(identifier)
            case _:
                raise RuntimeError(f"a fuzzing child sent {message[0]!r}, which is a defect of fuzzfarm")

    def _hangs(self, child: Interpreter) -> bool:
        started = child.recorder.cells[Cell.STARTED]
        if not started:
            return time.monotonic() - self._idle_since > IDLE_TIMEOUT_S
        self._idle_since = time.monotonic()
        waited = waited_for_processor_ns(child.child.pid)
        if started != self._watched[0]:
            self._watched = (started, waited)
        starved = waited - self._watched[1]
        return time.monotonic_ns() - started - starved > self.operation.example_timeout_s * NS

    def bury(self, death: Death) -> bool:
        """Go on after a child's death; return whether an example of the shard caused it.

        Raises:
            RuntimeError: when children keep dying while they run no example.
        """
        self._replaced += 1
        if death.index is None:
            self._idle_deaths += 1
            if self._idle_deaths >= MAX_IDLE_DEATHS:
                raise RuntimeError(
                    f"children of {target_of(self.operation.target)!r} died {MAX_IDLE_DEATHS} times ({death.cause}) "
                    "while they ran no example: does the target start threads that end the process?"
                )
            return False
        self.next_index = death.index + 1
        return True

    def killed_by(self, death: Death, described: dict[str, Any] | None, child: Interpreter) -> None:
        """Record the example that killed a child.

        Args:
            death: how it died.
            described: the example, generated again, or None where generating it kills.
            child: any child that has the target, for its versions.
        """
        failure = death_failure(self.operation.target, death, self.operation.example_timeout_s, described)
        mark = described["fingerprint"] if described else None
        if mark is not None and len(self._skip) < MAX_SKIPPED:
            self._skip.append(mark)
        self._add(self.finding(failure, child, 1))

    def finding(self, failure: dict[str, Any], child: Ran, count: int) -> Finding:
        """Return a failure that a child told as a finding."""
        now = self.clock()
        operation = self.operation
        return Finding(
            **{**failure, "kind": ErrorKind(failure["kind"])},
            target=target_of(operation.target),
            strategy=None if operation.inputs is not None else operation.strategy,
            seed=operation.seed,
            count=count,
            first_seen=now,
            last_seen=now,
            python=child.python,
            hypothesis=child.hypothesis,
            replay=f"fuzzfarm replay {failure['id']}",
            example_timeout_s=operation.example_timeout_s,
            **Restrictions.of(operation).told(),
            inputs=operation.inputs,
            command=tuple(operation.command or ()),
            crash_exit_codes=tuple(operation.crash_exit_codes),
        )

    def _add(self, finding: Finding) -> None:
        known = self._findings.get(finding.id)
        self._findings[finding.id] = finding if known is None else combine(known, finding)
        self._known[finding.id] = self._findings[finding.id]

    def _pause(self) -> None:
        """Stop counting seconds: no example runs until `begin`."""
        if self._running_since is not None:
            self._ran_s += time.monotonic() - self._running_since
            self._running_since = None

    def _again(self, identifier: str) -> None:
        now = self.clock()
        self._add(replace(self._known[identifier], count=1, first_seen=now, last_seen=now))

    def due(self, interval_s: float) -> bool:
        """Return whether the last progress was told that long ago."""
        return time.monotonic() - self._told_at >= interval_s

    def take(self) -> ShardProgress:
        """Return what happened since the last time, and start anew."""
        self._told_at = time.monotonic()
        if self._running_since is not None:
            self._ran_s += self._told_at - self._running_since
            self._running_since = self._told_at
        examples, duration_s = self.next_index - self._told, self._ran_s
        result = FuzzResult(
            examples=examples,
            distinct_examples=self._distinct,
            invalid_examples=self._invalid,
            duration_s=duration_s,
            executions_per_s=examples / duration_s if duration_s else 0.0,
            seed=self.operation.seed,
            findings=list(self._findings.values()),
            children_replaced=self._replaced,
        )
        self._told = self.next_index
        self._invalid = self._distinct = self._replaced = 0
        self._ran_s = 0.0
        self._findings = {}
        return ShardProgress(self.next_index, result)
