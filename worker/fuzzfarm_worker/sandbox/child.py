"""One forked child as the worker sees it: its socket, its cells, what it prints, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fuzzfarm_worker.processes.capture import Capture
from fuzzfarm_worker.sandbox.cells import Cells, new_cells

if TYPE_CHECKING:
    from pathlib import Path

    from fuzzfarm_worker.processes.pipes import Drain, Pipes

OUTPUT_TAIL_BYTES = 16_384
"""What is kept of what a child prints, for the error of its death: a deep traceback."""

KILL_WAIT_S = 5.0
"""Longest wait for an exit after SIGKILL; only a process stuck inside the kernel takes longer than milliseconds."""

_PROCESS_CPU_CLOCK = 2
"""CPUCLOCK_SCHED of a whole process; the clock of another process is `~pid << 3 | 2` (clock_getcpuclockid(3))."""


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a child ended.

    Attributes:
        returncode: its exit code, or minus the signal's number.
        zygote: what happened to its zygote, when that took the child with it.
        guardian_lost: whether the worker's guardian took both with it.
    """

    returncode: int
    zygote: str | None = None
    guardian_lost: bool = False


class ChildEnds:
    """The ends of everything that a child is given, made before the fork; `close_theirs` after it."""

    def __init__(self, connection: socket.socket, memory: int, output: int) -> None:
        self.connection = connection
        self.memory = memory
        self.output = output

    def descriptors(self) -> list[int]:
        """Return what the zygote is sent, in its order."""
        return [self.connection.fileno(), self.memory, self.output]

    def close(self) -> None:
        """Close them here; the child has its own. A second call does nothing."""
        if self.connection.fileno() >= 0:
            self.connection.close()
            os.close(self.memory)
            os.close(self.output)


class ForkedChild:
    """A child, from the request for its fork to the end of all that it started.

    Attributes:
        pid: its process id; 0 until it is forked.
        connection: our end of its socket, not blocking.
        cells: what both sides see.
        exited: done when nothing of it is left.
    """

    def __init__(self, connection: socket.socket, cells: Cells, output: Capture | None, drain: Drain | None) -> None:
        self.pid = 0
        self.connection = connection
        self.cells = cells
        self.exited: asyncio.Future[ChildEnd] = asyncio.get_running_loop().create_future()
        if drain is not None:
            self.exited.add_done_callback(lambda _: drain.finish())
        self._output = output
        self._pidfd = -1
        self._ask_to_kill: Callable[[], None] = _nothing
        self._give_up: asyncio.TimerHandle | None = None
        self._closed = False

    @classmethod
    async def prepare(cls, output: Pipes | int, cells_file: Path | None = None) -> tuple[ForkedChild, ChildEnds]:
        """Make a child's pipes, socket and cells; the caller sends the ends to a zygote, and closes them."""
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            undo.callback(theirs.close)
            memory, cells = new_cells(cells_file)
            undo.callback(os.close, memory)
            undo.callback(cells.close)
            ours.setblocking(False)
            if isinstance(output, int):
                ends = ChildEnds(theirs, memory, os.dup(output))
                undo.pop_all()
                return cls(ours, cells, None, None), ends
            capture = Capture(OUTPUT_TAIL_BYTES, tail_bytes=OUTPUT_TAIL_BYTES)
            drain, writer = await output.open_output(capture)
            drain.begin()
            undo.pop_all()
            return cls(ours, cells, capture, drain), ChildEnds(theirs, memory, writer)

    def begin(self, pid: int, pidfd: int, ask_to_kill: Callable[[], None]) -> None:
        """It was forked: `pidfd` (-1: none) is ours from now on, without it only its zygote can kill it."""
        self.pid = pid
        self._pidfd = pidfd
        self._ask_to_kill = ask_to_kill

    def end(self, end: ChildEnd) -> None:
        """Nothing of it is left."""
        if self._give_up is not None:
            self._give_up.cancel()
        if not self.exited.done():
            self.exited.set_result(end)

    def kill(self) -> None:
        """Kill it, at once; its zygote sees to what it started. `exited` is done at the latest after `KILL_WAIT_S`."""
        if self.exited.done() or self._give_up is not None:
            return
        loop = asyncio.get_running_loop()
        self._give_up = loop.call_later(KILL_WAIT_S, self.end, ChildEnd(-signal.SIGKILL))
        if self._pidfd < 0:
            self._ask_to_kill()
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def cpu_s(self) -> float | None:
        """Return the CPU seconds it has used, with all its threads; None where the system does not tell."""
        try:
            return time.clock_gettime(~self.pid << 3 | _PROCESS_CPU_CLOCK)
        except OSError:
            return None

    def printed(self) -> str:
        """Return the last of what it printed into a pipe."""
        return "" if self._output is None else self._output.value().decode(errors="replace")

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it can be told from another process by now."""
        if self._pidfd >= 0 and not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Free what is held of it, when `exited` is done."""
        if self._closed:
            return
        self._closed = True
        self.connection.close()
        self.cells.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)


def _nothing() -> None:
    """Stand in until the child is forked."""
