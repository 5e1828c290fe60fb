"""Where fuzzing children come from: zygotes, each of which has one module imported, and the targets in it loaded."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.targets import import_failure
from fuzzfarm_worker.environment import interpreter_environment
from fuzzfarm_worker.fuzzing.child import PREPARE, SERVE
from fuzzfarm_worker.fuzzing.interpreter import ChildLostError, Interpreter
from fuzzfarm_worker.fuzzing.recordings import Recordings
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.fuzzing.words import is_name, target_of
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.sandbox.cells import open_memory
from fuzzfarm_worker.sandbox.child import ForkedChild
from fuzzfarm_worker.sandbox.confinement import NO_NAMESPACE
from fuzzfarm_worker.sandbox.errors import ModuleRefusedError, SandboxError, ThreadsStartedError
from fuzzfarm_worker.sandbox.link import ZygoteLink

MOST_ZYGOTES = 8
"""Zygotes that are kept; the one that was used least recently ends first."""


class Target(NamedTuple):
    """What a zygote has loaded: the target, and what draws its arguments."""

    target: str
    strategy: str | None

    @classmethod
    def of(cls, operation: FuzzOperation) -> Target:
        """Return that of an operation."""
        return cls(operation.target, operation.strategy)

    @property
    def module(self) -> str | None:
        """The module that it is in; None for a command."""
        return self.target.partition(":")[0] if is_name(self.target) else None


class Nursery:
    """Forks children of any target; use it as `async with`, which ends all of them.

    Args:
        processes: starts the zygotes.
        listed: whether a target or strategy, by its name, may come from another module; every one may by default.
        recordings: where the recorders of the children are kept, should the worker die; None: only in memory.
    """

    def __init__(
        self,
        processes: ProcessManager,
        listed: Callable[[str], bool] = lambda _name: True,
        recordings: Recordings | None = None,
    ) -> None:
        self._processes = processes
        self._recordings = recordings
        self._listed = listed
        self._links: OrderedDict[str | Target, asyncio.Task[ZygoteLink]] = OrderedDict()
        self._alone: set[Target] = set()
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

    async def child(self, target: Target, restrictions: Restrictions) -> Interpreter:
        """Return a fresh child, which is the caller's to close.

        Raises:
            TargetError: when the target cannot be fuzzed, or importing it ends or blocks its interpreter; also when it
                has to leave the network, which this host does not allow.
            ChildLostError: when no child can be forked.
        """
        with ExitStack() as undo:
            printed = open_memory("fuzzfarm-printed")
            undo.callback(os.close, printed)
            fcntl.fcntl(printed, fcntl.F_SETFL, os.O_APPEND)
            try:
                forked = await self._forked(target, printed, restrictions)
            except ModuleRefusedError as exc:
                raise import_failure(target.target, str(exc)) from exc
            except SandboxError as exc:
                raise ChildLostError(f"no child can be forked: {exc}") from exc
            undo.pop_all()
            child = Interpreter(forked, printed, restrictions.limits.cpu_s)
        try:
            await child.greet()
        except BaseException as exc:
            await child.close()
            code = forked.exited.result().returncode
            if isinstance(exc, ChildLostError) and code == NO_NAMESPACE and not restrictions.network:
                raise _needs_namespace(target) from exc
            raise
        return child

    async def _forked(self, target: Target, printed: int, restrictions: Restrictions) -> ForkedChild:
        """Fork a child of the zygote that the module has, or of one of its own where loading it starts threads."""
        module, options = target.module, self.options(target)
        limits, network, cells_file = restrictions.from_fork(), restrictions.network, self.recorder_file()
        if module is not None and target not in self._alone:
            link = await self._link(module, {"module": target.target})
            try:
                return await link.fork(printed, limits, options, network=network, cells_file=cells_file)
            except ThreadsStartedError:
                self._alone.add(target)
        link = await self._link(target, options)
        return await link.fork(printed, limits, network=network, cells_file=cells_file)

    def recorder_file(self) -> Path | None:
        """Return where the recorder of a new child is kept; None: only in memory."""
        return None if self._recordings is None else self._recordings.new_file()

    def options(self, target: Target) -> dict[str, Any]:
        """Return what `child.prepare` loads a target with."""
        own = [name for name in target if name is not None and not self._listed(name)]
        return {"target": target.target, "strategy": target.strategy, "own": own}

    async def _link(self, key: str | Target, options: dict[str, Any]) -> ZygoteLink:
        """Return the living zygote of a module, or of a target; who asks for one that is being started waits for it."""
        starting = self._links.get(key)
        if starting is None or _is_gone(starting):
            if starting is not None:
                self._end(key)
            starting = self._links[key] = asyncio.create_task(self._start(options))
        self._links.move_to_end(key)
        while len(self._links) > MOST_ZYGOTES:
            self._end(next(iter(self._links)))
        return await asyncio.shield(starting)

    async def _start(self, options: dict[str, Any]) -> ZygoteLink:
        return await ZygoteLink.start(
            self._processes,
            PREPARE.partition(":")[0],  # which imports the module, after what pytest would import first
            SERVE,
            prepare=PREPARE,
            options=options,
            env=fuzzing_environment(),
        )

    def _end(self, key: str | Target) -> None:
        task = asyncio.create_task(_stop(self._links.pop(key)))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _needs_namespace(target: Target) -> TargetError:
    name = target_of(target.target)
    return TargetError(
        name,
        f"{name!r} is to run without network, which needs a network namespace that this host does not give: "
        "allow user namespaces there (user.max_user_namespaces, and the profile of its container), or leave network on",
    )


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
