"""The pool of child interpreters of one worker process."""

from __future__ import annotations

import asyncio
import platform
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from types import TracebackType
from typing import Any, NamedTuple, Self

from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding
from fuzzfarm_worker.fuzzing.deaths import death_failure
from fuzzfarm_worker.fuzzing.driving import DESCRIBE_EXTRA_S, Drive
from fuzzfarm_worker.fuzzing.interpreter import Death, Interpreter
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.fuzzing.shards import Shard, ShardProgress
from fuzzfarm_worker.fuzzing.threads import TargetThreads
from fuzzfarm_worker.processes import ProcessManager

Key = tuple[Target, Restrictions, bool]
"""What a child has loaded, what it is held to, and whether it is one, and not a thread of the worker."""


class FuzzChildren:
    """Children that run examples, at most `max_children` of them, kept warm for the next shard of their target.

    Use it with `async with`, or call `aclose`, which kills all of them.
    """

    def __init__(
        self,
        processes: ProcessManager,
        max_children: int = 2,
        *,
        listed: Callable[[str], bool] = lambda _name: True,
        nursery: Nursery | None = None,
    ) -> None:
        """Make an empty pool; children start when a shard needs them.

        Args:
            processes: starts the zygotes from which children come.
            max_children: how many may live; further shards wait.
            listed: whether a target or strategy, by its name, may come from another module; every one may by default.
            nursery: makes the children; one of its own, unless given.

        Raises:
            ValueError: when `max_children` is below 1.
        """
        if max_children < 1:
            raise ValueError("max_children must be at least 1")
        self._max_children = max_children
        self._nursery = nursery or Nursery(processes, listed)
        self._threads = TargetThreads(self._nursery)
        self._slots = asyncio.Semaphore(max_children)
        self._busy = 0
        self._idle: OrderedDict[Interpreter, Key] = OrderedDict()
        self._ending: set[asyncio.Task[None]] = set()
        self.started = 0
        """Children started so far."""

    async def __aenter__(self) -> Self:
        """Return the pool."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Kill all children."""
        await self.aclose()

    async def aclose(self) -> None:
        """Kill all idle children and wait for the end of every one; end the shards first."""
        while self._idle:
            self.retire(self._idle.popitem()[0])
        while self._ending:
            await asyncio.wait(self._ending)
        await self._nursery.aclose()

    async def run_shard(
        self,
        operation: FuzzOperation,
        start: int,
        stop: int,
        *,
        deadline_s: float | None = None,
        owner: str = "",
        over: Callable[[], bool] = lambda: False,
    ) -> AsyncGenerator[ShardProgress, None]:
        """Run examples `start` to `stop` of an operation; an example that kills its child is a finding.

        Yields progress at least every 0.25 s, also while a child starts, and once at the end. Closing the iterator
        (`aclose`) stops after the current example; what ran after the last progress is not told, so that the caller's
        next index is right. Cancelling kills the running example. After either nothing of the shard runs.

        Args:
            operation: what to fuzz.
            start: the first index.
            stop: the index after the last one.
            deadline_s: seconds of running, from the first example, after which no further example starts. The shard
                then ends by itself, before `stop`.
            owner: for whom they run: what the recorders name, should the worker die.
            over: is asked many times a second; once it says True, the shard ends as at its deadline.

        Raises:
            TargetError: when the target cannot be fuzzed; before any example has run.
            RuntimeError: when children die without running an example.
        """
        async with self._slots:
            self._busy += 1
            shard = Shard(operation, start, stop, deadline_s, owner)
            drive = Drive(self, shard, over)
            try:
                while await drive.step():
                    yield shard.take()
                yield shard.take()
            except GeneratorExit:
                await drive.stop()
                raise
            finally:
                self._busy -= 1
                drive.abandon()

    async def blame(self, operation: FuzzOperation, index: int, message: str, *, generate: bool = True) -> Finding:
        """Return the finding of an example with which workers died; it is not run.

        Args:
            operation: what was fuzzed.
            index: the example.
            message: of the finding.
            generate: whether to generate it, so that the finding says what it is; False where that may kill.

        Raises:
            TargetError: when the target cannot be fuzzed.
            RuntimeError: when there is no child to generate it.
        """
        if not generate:
            return _blamed(operation, index, message, None, Versions(platform.python_version(), version("hypothesis")))
        async with self._slots:
            child = await self.ready(operation)
            try:
                described = await child.describe(operation.seed, index, operation.example_timeout_s + DESCRIBE_EXTRA_S)
            except BaseException:
                self.retire(child)
                raise
            if described is None:
                self.retire(child)
            else:
                self.keep(child, operation)
            return _blamed(operation, index, message, described, child)

    async def load(self, operation: FuzzOperation, *, before: Callable[[], Awaitable[None]]) -> None:
        """Have a warm child that has the operation's target.

        Args:
            operation: what is to be fuzzed.
            before: is awaited when there is room for the child, before anything is loaded.

        Raises:
            TargetError: when the target cannot be fuzzed.
            RuntimeError: when no child can be forked.
        """
        async with self.place():
            await before()
            self.keep(await self.ready(operation), operation)

    async def ready(self, operation: FuzzOperation) -> Interpreter:
        """Return a warm child that has the operation's target, or a fresh one.

        Raises:
            TargetError: when the target cannot be fuzzed.
        """
        key = _key(operation)
        for child in [child for child, loaded in self._idle.items() if loaded == key]:
            del self._idle[child]
            if not child.dead:
                return child
            self.retire(child)
        self._make_room()
        return await self._fresh(key)

    def _make_room(self) -> None:
        """End idle children, those first that were used least recently, where there would be too many."""
        while self._idle and self._busy + len(self._idle) > self._max_children:
            self.retire(self._idle.popitem(last=False)[0])

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Have the place of one child while the context is open; waits until one is free."""
        async with self._slots:
            self._busy += 1
            try:
                self._make_room()
                yield
            finally:
                self._busy -= 1

    async def _fresh(self, key: Key) -> Interpreter:
        target, restrictions, is_process = key
        in_thread = not is_process and not self._threads.exhausted
        child = await (self._threads.interpreter(target) if in_thread else self._nursery.child(target, restrictions))
        self.started += 1
        return child

    def keep(self, child: Interpreter, operation: FuzzOperation) -> None:
        """Keep an idle child for the next shard of its target."""
        self._idle[child] = _key(operation)

    def retire(self, child: Interpreter) -> None:
        """Kill a child now; `aclose` waits for its exit."""
        child.kill()
        self.own(asyncio.create_task(child.close()))

    def own(self, task: asyncio.Task[None]) -> None:
        """Have `aclose` wait for a task."""
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class Versions(NamedTuple):
    """Of what ran an example, where no child is there to tell."""

    python: str
    hypothesis: str


def _blamed(
    operation: FuzzOperation, index: int, message: str, described: dict[str, Any] | None, ran: Versions | Interpreter
) -> Finding:
    failure = death_failure(operation.target, Death(index, False, -9, [], ""), 0.0, described)
    failure |= {"kind": ErrorKind.WORKER_LOST, "message": message}
    return Shard(operation, index, index + 1, None).finding(failure, ran, 1)


def _key(operation: FuzzOperation) -> Key:
    return Target.of(operation), Restrictions.of(operation), operation.isolation == "child"
