"""Runs one command to its end: pipes, spawn, drain, wait, and stop when it must."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from fuzzfarm_worker.processes.capture import Capture
from fuzzfarm_worker.processes.command import (
    CommandResult,
    CommandSpec,
    StreamName,
    checked_command,
    checked_env,
)
from fuzzfarm_worker.processes.drain import DrainTools, PipeDrain
from fuzzfarm_worker.processes.errors import ProcessStartError
from fuzzfarm_worker.processes.spawner import Child, Exit, Spawner, SpawnRequest

#: Longest wait for the kernel to finish a SIGKILLed tree; only uninterruptible sleep takes longer than milliseconds.
KILL_WAIT_S = 5.0

OutputCallback = Callable[[StreamName, memoryview], None]


class CommandRun:
    """One command from its start to its result. Created by the manager, which owns the spawner and the table."""

    def __init__(self, spec: CommandSpec, tools: DrainTools, on_output: OutputCallback | None) -> None:
        self.spec = spec
        self.command = checked_command(spec.command)
        self._tools = tools
        self._captures = tuple(self._capture(name, on_output) for name in ("stdout", "stderr"))
        self._drains: list[PipeDrain] = []
        self._child: Child | None = None
        self._started_at = 0.0

    def _capture(self, name: StreamName, on_output: OutputCallback | None) -> Capture:
        return Capture(
            self.spec.max_output_bytes,
            tail_bytes=self.spec.keep_tail_bytes,
            spill=self.spec.spill_stdout if name == "stdout" else None,
            on_data=None if on_output is None else lambda data: on_output(name, data),
        )

    async def start(self, spawner: Spawner) -> Child:
        """Start the program with both pipes drained from its first moment."""
        env = checked_env(self.command, self.spec.env)
        cwd = os.fspath(self.spec.cwd) if self.spec.cwd is not None else os.getcwd()
        with contextlib.ExitStack() as child_ends:
            stdin = child_ends.enter_context(self._stdin())
            stdout, stderr = (self._open_pipe(capture, child_ends) for capture in self._captures)
            self._started_at = time.monotonic()
            self._child = await spawner.spawn(
                SpawnRequest(self.command, cwd, env, stdin, stdout, stderr, self.spec.limits)
            )
        return self._child

    def _open_pipe(self, capture: Capture, child_ends: contextlib.ExitStack) -> int:
        reader, writer = os.pipe()
        child_ends.callback(os.close, writer)
        after_read = self._check_cap if self.spec.stop_at_cap else None
        self._drains.append(PipeDrain(reader, capture, self._tools, after_read))
        return writer

    @contextlib.contextmanager
    def _stdin(self) -> Iterator[int]:
        """A descriptor to read from: a file even for bytes, so that nobody has to feed a pipe."""
        source = self.spec.stdin
        if source is None:
            yield self._tools.null
        elif isinstance(source, Path):
            try:
                file = source.open("rb")
            except OSError as error:
                raise ProcessStartError(self.command, f"stdin {source}: {error.strerror}") from error
            with file:
                yield file.fileno()
        else:
            with tempfile.TemporaryFile(buffering=0) as copy:
                copy.write(source)
                copy.seek(0)
                yield copy.fileno()

    def _check_cap(self) -> None:
        if self._child is not None and any(capture.truncated for capture in self._captures):
            self._child.kill_tree()

    async def finish(self) -> CommandResult:
        """Wait for the end, stopping the tree at the timeout or when the caller is cancelled."""
        assert self._child is not None  # noqa: S101 - start() came first
        exited = self._child.exited
        done, _ = await asyncio.wait([exited], timeout=self.spec.timeout_s)
        if not done:
            await stop_tree(self._child, self.spec.grace_s)
        return self._result(exited.result(), timed_out=not done)

    def _result(self, end: Exit, *, timed_out: bool) -> CommandResult:
        duration_s = time.monotonic() - self._started_at
        self.close()
        stdout, stderr = self._captures
        return CommandResult(
            exit_code=end.returncode,
            signal=-end.returncode if end.returncode < 0 else None,
            stdout=stdout.value(),
            stderr=stderr.value(),
            stdout_bytes=stdout.total_bytes,
            stderr_bytes=stderr.total_bytes,
            truncated=stdout.truncated or stderr.truncated,
            duration_s=duration_s,
            peak_memory_bytes=end.peak_memory_bytes,
            cpu_time_s=end.cpu_time_s,
            timed_out=timed_out,
        )

    def close(self) -> None:
        """Take what is left in the pipes and close them."""
        for drain in self._drains:
            drain.finish()


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
