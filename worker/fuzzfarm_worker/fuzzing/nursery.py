"""Where fuzzing children come from: zygotes, each of which has one target loaded."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import NamedTuple, Self

from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.targets import import_failure
from fuzzfarm_worker.environment import interpreter_environment
from fuzzfarm_worker.fuzzing.child import PREPARE, SERVE
from fuzzfarm_worker.fuzzing.interpreter import ChildLostError, Interpreter
from fuzzfarm_worker.processes import Limits, ProcessManager
from fuzzfarm_worker.sandbox.cells import open_memory
from fuzzfarm_worker.sandbox.errors import ModuleRefusedError, SandboxError
from fuzzfarm_worker.sandbox.link import ZygoteLink
from fuzzfarm_worker.sandbox.pool import MAX_FILE_BYTES

MOST_ZYGOTES = 8
"""Targets whose zygotes are kept; the one that was used least recently ends first."""


class Target(NamedTuple):
    """What a zygote has loaded: the target, and what draws its arguments."""

    target: str
    strategy: str | None

    @classmethod
    def of(cls, operation: FuzzOperation) -> Target:
        """Return that of an operation."""
        return cls(operation.target, operation.strategy)


class Nursery:
    """Forks children of any target; use it as `async with`, which ends all of them.

    Args:
        processes: starts the zygotes.
        listed: whether a target or strategy, by its name, may come from another module; every one may by default.
    """

    def __init__(self, processes: ProcessManager, listed: Callable[[str], bool] = lambda _name: True) -> None:
        self._processes = processes
        self._listed = listed
        self._links: OrderedDict[Target, asyncio.Task[ZygoteLink]] = OrderedDict()
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all zygotes and children, and return when they are gone."""
        while self._links:
            self._end(next(iter(self._links)))
        while self._ending:
            await asyncio.wait(self._ending)

    async def child(self, target: Target, memory_bytes: int | None) -> Interpreter:
        """Return a fresh child, which is the caller's to close.

        Raises:
            TargetError: when the target cannot be fuzzed, or importing it ends or blocks its interpreter.
            ChildLostError: when no child can be forked.
        """
        link = await self._link(target)
        with ExitStack() as undo:
            printed = open_memory("fuzzfarm-printed")
            undo.callback(os.close, printed)
            fcntl.fcntl(printed, fcntl.F_SETFL, os.O_APPEND)
            limits = Limits(memory_bytes=memory_bytes, file_size_bytes=MAX_FILE_BYTES, core=0)
            try:
                forked = await link.fork(printed, limits)
            except SandboxError as exc:
                raise ChildLostError(f"no child can be forked: {exc}") from exc
            undo.pop_all()
            child = Interpreter(forked, printed)
        try:
            await child.greet()
        except BaseException:
            await child.close()
            raise
        return child

    async def _link(self, target: Target) -> ZygoteLink:
        """Return the living zygote of a target; whoever asks for one that is being started waits for the same."""
        starting = self._links.get(target)
        if starting is None or _is_gone(starting):
            if starting is not None:
                self._end(target)
            starting = self._links[target] = asyncio.create_task(self._start(target))
        self._links.move_to_end(target)
        while len(self._links) > MOST_ZYGOTES:
            self._end(next(iter(self._links)))
        return await asyncio.shield(starting)

    async def _start(self, target: Target) -> ZygoteLink:
        own = [name for name in target if name is not None and not self._listed(name)]
        options = {"target": target.target, "strategy": target.strategy, "own": own}
        try:
            return await ZygoteLink.start(
                self._processes,
                PREPARE.partition(":")[0],  # which imports the module, after what pytest would import first
                SERVE,
                prepare=PREPARE,
                options=options,
                env=fuzzing_environment(),
            )
        except ModuleRefusedError as exc:
            raise import_failure(target.target, str(exc)) from exc

    def _end(self, target: Target) -> None:
        task = asyncio.create_task(_stop(self._links.pop(target)))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _is_gone(starting: asyncio.Task[ZygoteLink]) -> bool:
    """Whether it failed, or has ended since."""
    if not starting.done():
        return False
    return starting.cancelled() or starting.exception() is not None or not starting.result().alive


async def _stop(starting: asyncio.Task[ZygoteLink]) -> None:
    starting.cancel()
    await asyncio.wait([starting])
    if not starting.cancelled() and starting.exception() is None:
        await starting.result().stop()


def fuzzing_environment() -> dict[str, str]:
    """Return the environment of fuzzing children: that of other children, Hypothesis's own, and one hash seed for all.

    Hypothesis keeps its tables of characters in the user's cache, not in a folder of whatever directory we run in.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    hypothesis = {name: value for name, value in os.environ.items() if name.startswith("HYPOTHESIS_")}
    hypothesis.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", f"{cache}/fuzzfarm/hypothesis")
    return {**interpreter_environment(), **hypothesis, "PYTHONHASHSEED": "0"}
