"""A started process with the interface of :class:`asyncio.subprocess.Process`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from typing import TYPE_CHECKING, Any

from fuzzfarm_worker.processes.errors import GuardianLostError
from fuzzfarm_worker.processes.platform import FORCE
from fuzzfarm_worker.processes.spawner import Child, Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuzzfarm_worker.processes.pipes import Drain

_log = logging.getLogger(__name__)

#: Unread output kept for one stream of a started process; what comes after it is counted and dropped.
UNREAD_BYTES = 10_000_000


class OutputReader(asyncio.StreamReader):
    """A stream of a started process, drained whether it is read or not.

    At most ``UNREAD_BYTES`` wait unread. What comes when they are full is dropped, and all that follows too, so that
    a reader gets a prefix of the output without holes and then its end.

    Attributes:
        total_bytes: What came.
        dropped_bytes: What of it was dropped.
        keeps_all: Drop nothing from now on, because somebody collects it.
    """

    def __init__(self) -> None:
        super().__init__(limit=UNREAD_BYTES)
        self.total_bytes = 0
        self.dropped_bytes = 0
        self.keeps_all = False

    @property
    def counts_only(self) -> bool:
        """Some of it was dropped, so the rest is dropped too."""
        return self.dropped_bytes > 0

    def feed(self, data: memoryview) -> None:
        """Take the next bytes from the pipe."""
        self.total_bytes += len(data)
        unread = len(self._buffer)  # type: ignore[attr-defined]  # the only place that knows what is unread
        room = len(data) if self.keeps_all else UNREAD_BYTES - unread
        self.feed_data(bytes(data[:room]))
        self.dropped_bytes += max(len(data) - room, 0)

    def skip(self, count: int) -> None:
        """Count bytes that were thrown away unseen."""
        self.total_bytes += count
        self.dropped_bytes += count

    def close(self) -> None:
        """The pipe has ended."""
        self.feed_eof()


class ManagedProcess:
    """A process the manager started; signals go to its whole group, ``kill`` to its whole tree.

    ``returncode`` is set once the whole tree is gone, and the streams end then at the latest.
    """

    def __init__(
        self,
        child: Child,
        *,
        command: Sequence[str],
        name: str,
        stdin: asyncio.StreamWriter | None = None,
        stdout: OutputReader | None = None,
        stderr: OutputReader | None = None,
        drains: Sequence[Drain] = (),
    ) -> None:
        self.command = tuple(command)
        self.name = name
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.stop_requested = False
        self.started_at = time.time()
        self._started = time.monotonic()
        self._ended: float | None = None
        self._child = child
        self._drains = drains
        child.exited.add_done_callback(self._on_exit)

    @property
    def child(self) -> Child:
        """The leader as its spawner knows it."""
        return self._child

    @property
    def pid(self) -> int:
        """Process id of the leader."""
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """None while the tree lives; negative is the signal that ended the leader."""
        if not self._child.exited.done():
            return None
        return self.exit.returncode

    @property
    def exit(self) -> Exit:
        """How it ended; only valid once it has."""
        try:
            return self._child.exited.result()
        except GuardianLostError:
            return Exit(-FORCE, None, None)

    @property
    def status(self) -> str:
        """``running``; ``stopped`` when it was asked to end before it ended, otherwise ``finished``."""
        if not self._child.exited.done():
            return "running"
        return "stopped" if self.stop_requested else "finished"

    def describe(self) -> dict[str, Any]:
        """Its status for people and monitoring; times in seconds."""
        running = self.returncode is None
        return {
            "pid": self.pid,
            "name": self.name,
            "command": list(self.command),
            "status": self.status,
            "started_at": self.started_at,
            "exit_code": self.returncode,
            "duration_s": (self._ended or time.monotonic()) - self._started,
            "peak_memory_bytes": None if running else self.exit.peak_memory_bytes,
            "cpu_time_s": None if running else self.exit.cpu_time_s,
            "dropped_bytes": sum(reader.dropped_bytes for reader in (self.stdout, self.stderr) if reader is not None),
        }

    async def wait(self) -> int:
        """Wait for the end of the tree and return the exit code; cancelling the wait leaves the process running."""
        await asyncio.wait([self._child.exited])
        for drain in self._drains:
            await drain.ended()
        return self.exit.returncode

    async def communicate(self, input: bytes | None = None) -> tuple[bytes, bytes]:  # noqa: A002 - asyncio's name
        """Send ``input``, close stdin, and return what stdout and stderr bring until the end, however much that is.

        What was dropped before, because nobody read it, is missing: ``dropped_bytes`` of the streams tell.
        """
        _, stdout, stderr = await asyncio.gather(self._feed(input), _read_all(self.stdout), _read_all(self.stderr))
        await self.wait()
        return stdout, stderr

    async def _feed(self, data: bytes | None) -> None:
        if self.stdin is None:
            return
        # A program may end, or close its stdin, before it has read everything; asyncio's communicate ignores it too.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if data:
                self.stdin.write(data)
                await self.stdin.drain()
        self.stdin.close()

    def send_signal(self, signum: int) -> None:
        """Signal the group; nothing happens once the process has ended."""
        self._child.signal(signum)

    def terminate(self) -> None:
        """Ask the group to end."""
        self.stop_requested = self.stop_requested or self.returncode is None
        self._child.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole tree, other sessions too."""
        self.stop_requested = self.stop_requested or self.returncode is None
        self._child.kill_tree()

    def _on_exit(self, exited: asyncio.Future[Exit]) -> None:
        self._ended = time.monotonic()
        for drain in self._drains:
            drain.finish()
        if self.stdin is not None and not self.stdin.is_closing():
            self.stdin.transport.abort()  # nobody is left to read what is still unwritten
        error = exited.exception()
        if error is not None:
            _log.error("process %d (%s): %s", self.pid, self.name, error)
        elif exited.result().survivors:
            _log.warning("process %d (%s) left %d unkillable", self.pid, self.name, exited.result().survivors)


async def _read_all(reader: OutputReader | None) -> bytes:
    if reader is None:
        return b""
    reader.keeps_all = True
    return await reader.read()
