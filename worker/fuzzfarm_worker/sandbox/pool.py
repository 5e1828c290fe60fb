"""The sandbox of a worker: calls of any module, each in a child that may die."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from fuzzfarm_shared.targets import import_failure
from fuzzfarm_shared.values import pack
from fuzzfarm_worker.processes import Limits, ProcessManager
from fuzzfarm_worker.processes.pipes import FastPipes, Pipes
from fuzzfarm_worker.sandbox.caller import Call, Timed
from fuzzfarm_worker.sandbox.frames import framed
from fuzzfarm_worker.sandbox.group import Group

if TYPE_CHECKING:
    from types import TracebackType

    from fuzzfarm_worker.sandbox.errors import ModuleRefusedError

MAX_FILE_BYTES = 1_000_000_000
"""Largest file a target may write: a runaway write must not fill the disk of a host."""

IDLE_CHILD_S = 5.0
"""A child without a call ends after this; the next one is a fork away."""

IDLE_ZYGOTE_S = 60.0
"""A zygote without a call ends after this; the next one takes as long as its import."""

MOST_IDLE_ZYGOTES = 8
"""Zygotes without a call that are kept; the one that was used least recently ends first."""

TIDY_S = 1.0
"""How often idle ones are looked for."""

REFUSED_S, MOST_REFUSED_S = 1.0, 60.0
"""A module that could not be imported is tried again after this; doubles with each failure, up to the second value."""

MOST_REFUSED = 1_000
"""Modules that could not be imported and are remembered."""

Key = tuple[str, int | None]
"""What children of a group share: the module, and their memory limit."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A module that could not be imported: why, how often in a row, and until when it is not tried again."""

    reason: str
    times: int
    until: float


class Sandbox:
    """Calls functions by name in children, and survives whatever these do; use it as `async with`.

    There is one zygote for each module that has calls, and at least one child. Children are added for calls that are
    stuck behind long ones, so there are never more at work than calls are open: the caller bounds both.

    Args:
        processes: starts the zygotes.
        max_computing: children of a module that are added only while fewer than this compute, in all modules.
    """

    def __init__(self, processes: ProcessManager, max_computing: int = 1) -> None:
        self.processes = processes
        self.pipes: Pipes = FastPipes()
        self._max_computing = max_computing
        self._groups: OrderedDict[Key, Group] = OrderedDict()
        self._refusals: OrderedDict[str, Refusal] = OrderedDict()
        self._ending: set[asyncio.Task[None]] = set()
        self._tidying: asyncio.TimerHandle | None = None
        self._closed = False

    async def call(
        self,
        target: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        memory_bytes: int | None = None,
        listed: bool = True,
    ) -> Any:
        """Call `target`, which may be async, in a child, and return its value; see `timed_call`."""
        timed = await self.timed_call(
            target, args, kwargs, timeout_s=timeout_s, memory_bytes=memory_bytes, listed=listed
        )
        return timed.value

    async def timed_call(
        self,
        target: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        memory_bytes: int | None = None,
        listed: bool = True,
    ) -> Timed:
        """Call `target`, which may be async, in a child, and return its value with the time that it took there.

        Args:
            target: "module:qualname".
            args: positional arguments.
            kwargs: keyword arguments.
            timeout_s: seconds from its start after which its child is killed; None: no limit.
            memory_bytes: address space of its child; None: no limit.
            listed: whether the target may come from another module than it names.

        Cancelling kills the child if the call has begun, and returns when it is gone.

        Raises:
            OperationFailedError: when the call raised, took too long, or its child ended.
            TargetError: when the target cannot be imported or called on this host; nothing of the call has run.
            UnsupportedValueError: for arguments that cannot travel.
            ProcessError: when no process can be started.
            RuntimeError: when the sandbox is closed.
        """
        if self._closed:
            raise RuntimeError("the sandbox is closed")
        request = framed(pack([target, listed, args if type(args) is list else list(args), kwargs or {}]))
        module = target.partition(":")[0]
        if self._refusals and (refusal := self._refusals.get(module)) is not None and refusal.until > time.monotonic():
            raise import_failure(target, refusal.reason)
        group = self._group((module, memory_bytes))
        call = Call(target, request, timeout_s, asyncio.get_running_loop().create_future())
        group.submit(call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            await group.cancel(call)
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all zygotes and children, together, and return when they are gone; open calls are cancelled."""
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        while self._groups:
            self._end(next(iter(self._groups)))
        while self._ending:
            await asyncio.wait(self._ending)
        if not self._closed:
            self._closed = True
            self.pipes.close()

    def may_compute(self) -> int:
        """How many more children may compute."""
        now = time.monotonic()
        computing = sum(caller.computing(now) for group in self._groups.values() for caller in group.callers)
        return max(0, self._max_computing - computing)

    def loaded(self, module: str) -> None:
        """Forget that a module could not be imported."""
        self._refusals.pop(module, None)

    def refuse(self, module: str, error: ModuleRefusedError) -> None:
        """Remember for a while, which doubles, that a module cannot be imported."""
        before = self._refusals.pop(module, None)
        times = before.times + 1 if before is not None else 1
        until = time.monotonic() + min(MOST_REFUSED_S, REFUSED_S * 2 ** min(times - 1, 10))
        self._refusals[module] = Refusal(str(error), times, until)
        if len(self._refusals) > MOST_REFUSED:
            self._refusals.popitem(last=False)

    def _group(self, key: Key) -> Group:
        group = self._groups.get(key)
        if group is None:
            self._end_idle_zygotes()
            limits = Limits(memory_bytes=key[1], file_size_bytes=MAX_FILE_BYTES, core=0)
            group = self._groups[key] = Group(self, key[0], limits)
            if self._tidying is None:
                self._tidying = asyncio.get_running_loop().call_later(TIDY_S, self._tidy)
        return group

    def _end_idle_zygotes(self) -> None:
        """Make room for one more."""
        idle = [key for key, group in self._groups.items() if not group.busy]
        idle.sort(key=lambda key: self._groups[key].idle_since)
        for key in idle[: max(0, len(idle) - MOST_IDLE_ZYGOTES + 1)]:
            self._end(key)

    def _tidy(self) -> None:
        """End what was idle for long."""
        before = time.monotonic() - IDLE_ZYGOTE_S
        for key, group in list(self._groups.items()):
            group.end_idle_children(IDLE_CHILD_S)
            if not group.busy and group.idle_since < before:
                self._end(key)
        self._tidying = asyncio.get_running_loop().call_later(TIDY_S, self._tidy) if self._groups else None

    def _end(self, key: Key) -> None:
        task = asyncio.create_task(self._groups.pop(key).close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
