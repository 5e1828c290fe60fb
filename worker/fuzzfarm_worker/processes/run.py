"""Runs one command to its end: pipes, spawn, drain, wait, and stop when it must."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import IO, TYPE_CHECKING

from fuzzfarm_worker.processes.capture import Capture
from fuzzfarm_worker.processes.command import (
    CommandProgress,
    CommandResult,
    CommandSpec,
    StreamName,
    checked_command,
    checked_cwd,
    checked_env,
)
from fuzzfarm_worker.processes.errors import UnkillableError
from fuzzfarm_worker.processes.folder import open_inside
from fuzzfarm_worker.processes.spawner import Child, Exit, Spawner, SpawnRequest
from fuzzfarm_worker.processes.usage import running_usage

if TYPE_CHECKING:
    from fuzzfarm_worker.processes.pipes import Drain, Pipes

#: Longest wait for the kernel to finish a SIGKILLed tree; only uninterruptible sleep takes longer than milliseconds.
KILL_WAIT_S = 5.0

OutputCallback = Callable[[StreamName, memoryview], None]


class CommandRun:
    """One command from its start to its result. Made by the manager, which owns the spawner and the table."""

    def __init__(self, spec: CommandSpec, pipes: Pipes, on_output: OutputCallback | None) -> None:
        self.spec = spec
        self.command = checked_command(spec.command)
        self._pipes = pipes
        self._on_output = on_output
        self._failure: Exception | None = None
        self._spill: IO[bytes] | None = None
        self._captures = (self._capture("stdout"), self._capture("stderr"))
        self._drains: list[Drain] = []
        self._child: Child | None = None
        self._started_at = 0.0

    def _capture(self, name: StreamName) -> Capture:
        looked_at = self._on_output is not None or (name == "stdout" and self.spec.spill_stdout is not None)
        return Capture(
            self.spec.max_output_bytes,
            tail_bytes=self.spec.keep_tail_bytes,
            on_data=(lambda data: self._hand_on(name, data)) if looked_at else None,
        )

    def _hand_on(self, name: StreamName, data: memoryview) -> None:
        """Spill output and tell the caller; an error in that ends the command and is raised by :meth:`finish`."""
        if self._failure is not None:
            return
        try:
            if self._spill is not None and name == "stdout":
                self._spill.write(data)
            if self._on_output is not None:
                self._on_output(name, data)
        except Exception as error:  # noqa: BLE001 - raised by finish()
            self._failure = error
            self._kill_if_unwanted()

    async def start(self, spawner: Spawner) -> Child:
        """Start the program with both pipes drained from its first moment."""
        env = checked_env(self.command, self.spec.env)
        cwd = checked_cwd(self.command, self.spec.cwd)
        child_ends: list[int] = []
        folder: int | None = None
        if self.spec.spill_stdout is not None:
            self._spill = self.spec.spill_stdout.open("wb")
        stdin = self._open_stdin()
        try:
            for capture in self._captures:
                child_ends.append(await self._open_pipe(capture))  # noqa: PERF401 - those made must be closed
            stdin_fd = self._pipes.null if stdin is None else stdin.fileno()
            self._started_at = time.monotonic()
            stdout_fd, stderr_fd = child_ends
            folder = None if self.spec.root is None else open_inside(self.spec.root, cwd)
            request = SpawnRequest(self.command, cwd, env, stdin_fd, stdout_fd, stderr_fd, self.spec.limits, folder)
            self._child = await spawner.spawn(request)
        finally:
            for fd in (*child_ends, *([] if folder is None else [folder])):
                os.close(fd)
            if stdin is not None:
                stdin.close()
        for drain in self._drains:
            self._pipes.begin_soon(drain) if self._on_output is None else drain.begin()
        self._kill_if_unwanted()
        return self._child

    async def _open_pipe(self, capture: Capture) -> int:
        drain, writer = await self._pipes.open_output(
            capture, self._kill_if_unwanted if self.spec.stop_at_cap else None
        )
        self._drains.append(drain)
        return writer

    def _open_stdin(self) -> IO[bytes] | None:
        """A file to read from, even for bytes, so that nobody has to feed a pipe."""
        source = self.spec.stdin
        if source is None:
            return None
        if isinstance(source, int):
            return os.fdopen(os.dup(source), "rb", buffering=0)
        if isinstance(source, bytes):
            copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
            copy.write(source)
            copy.seek(0)
            return copy
        return source.open("rb")

    def _kill_if_unwanted(self) -> None:
        """Kill at the cap, or after an error in ``on_output``; output may come before the start is known."""
        capped = self.spec.stop_at_cap and any(capture.truncated for capture in self._captures)
        if self._child is not None and (capped or self._failure is not None):
            self._child.kill_tree()

    async def finish(self) -> CommandResult:
        """Wait for the end; at the timeout, bring it about.

        Raises:
            GuardianLostError: The helper process died.
            UnkillableError: The tree survived SIGKILL.
            OSError: ``spill_stdout`` could not be written.
            Exception: What ``on_output`` raised.
        """
        assert self._child is not None  # noqa: S101 - start() came first
        exited = self._child.exited
        done, _ = await asyncio.wait([exited], timeout=self.spec.timeout_s)
        if not done and not await stop_tree(self._child, self.spec.grace_s):
            raise UnkillableError(self._child.pid)
        end = exited.result()
        for drain in self._drains:
            drain.finish()
            await drain.ended()
        if self._failure is not None:
            raise self._failure
        if self._spill is not None:
            self._spill.close()  # which writes the rest of it
        return self._result(end, timed_out=not done)

    def _result(self, end: Exit, *, timed_out: bool) -> CommandResult:
        stdout, stderr = self._captures
        return CommandResult(
            exit_code=end.returncode,
            signal=-end.returncode if end.returncode < 0 else None,
            stdout=stdout.value(),
            stderr=stderr.value(),
            stdout_bytes=stdout.total_bytes,
            stderr_bytes=stderr.total_bytes,
            stdout_head_bytes=stdout.head_bytes,
            stderr_head_bytes=stderr.head_bytes,
            truncated=stdout.truncated or stderr.truncated,
            duration_s=time.monotonic() - self._started_at,
            peak_memory_bytes=end.peak_memory_bytes,
            cpu_time_s=end.cpu_time_s,
            timed_out=timed_out,
        )

    @property
    def running(self) -> bool:
        """Whether it has started and its tree is not known to be gone."""
        return self._child is not None and not self._child.exited.done()

    def progress(self, tail_bytes: int) -> CommandProgress:
        """How far it is, with at most ``tail_bytes`` of the newest output of each stream; costs nothing until asked."""
        assert self._child is not None  # noqa: S101 - start() came first
        stdout, stderr = self._captures
        memory_bytes, cpu_time_s = running_usage(self._child.pid)
        return CommandProgress(
            running_s=time.monotonic() - self._started_at,
            stdout_bytes=stdout.total_bytes,
            stderr_bytes=stderr.total_bytes,
            stdout_tail=stdout.newest(tail_bytes),
            stderr_tail=stderr.newest(tail_bytes),
            memory_bytes=memory_bytes,
            cpu_time_s=cpu_time_s,
        )

    def pause_output(self) -> None:
        """Leave output in the pipes until :meth:`resume_output`; a talkative command waits."""
        for drain in self._drains:
            drain.pause()

    def resume_output(self) -> None:
        """Read output again."""
        for drain in self._drains:
            drain.resume()

    def close(self) -> None:
        """Release the pipes and files, whatever happened before."""
        for drain in self._drains:
            drain.close()
        if self._spill is not None:
            with contextlib.suppress(OSError):  # of no interest after an early end; finish() tells of it otherwise
                self._spill.close()


async def stop_tree(child: Child, grace_s: float, ask: Callable[[], None] | None = None) -> bool:
    """Ask, grace, force, wait: the one order in which anything is stopped.

    Args:
        child: What to stop.
        grace_s: How long it may take to follow SIGTERM; 0 kills at once.
        ask: How to ask; SIGTERM to the group unless given.

    Returns:
        Whether the tree is gone; False only when SIGKILL did not end it within ``KILL_WAIT_S``.
    """
    if grace_s > 0 and not child.exited.done():
        if ask is None:
            child.signal(signal.SIGTERM)
        else:
            ask()
        await asyncio.wait([child.exited], timeout=grace_s)
    if not child.exited.done():
        child.kill_tree()
        await asyncio.wait([child.exited], timeout=KILL_WAIT_S)
    return child.exited.done()


async def finish_despite_cancellation(cleanup: Awaitable[object]) -> None:
    """Await ``cleanup`` to its end even when the awaiting task is cancelled again; then raise that cancellation."""
    task = asyncio.ensure_future(cleanup)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
