"""One command, one call: no manager to keep."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fuzzfarm_worker.processes.command import DEFAULT_MAX_OUTPUT_BYTES, CommandResult, CommandSpec
from fuzzfarm_worker.processes.manager import ProcessManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from fuzzfarm_worker.processes.stream import OutputStream, PieceKind

#: Five minutes: the longest an analysis of one large binary may take before it counts as stuck.
DEFAULT_TIMEOUT_S = 300


async def execute_subprocess_async(
    cmd: Sequence[str], max_output_size: int = DEFAULT_MAX_OUTPUT_BYTES, timeout: float | None = DEFAULT_TIMEOUT_S
) -> tuple[str, int]:
    """Run a command and return its standard output and exit code.

    Args:
        cmd: Program and arguments; no shell is involved.
        max_output_size: Most bytes of output kept; the rest is read and dropped.
        timeout: Seconds for the whole run; None is no limit.

    Returns:
        The output as UTF-8 with replacement, never ending in half a character, and the exit code (negative: a signal).
        Standard error is drained and dropped; :meth:`ProcessManager.run` returns it.

    Raises:
        TimeoutError: It took longer; its whole tree is dead.
        ProcessStartError: It could not be started.

    Cancellation kills the whole tree.
    """
    result = await _run(cmd, max_output_size, timeout)
    return result.stdout_text, result.exit_code


def execute_subprocess_streaming(
    cmd: Sequence[str], max_output_size: int = DEFAULT_MAX_OUTPUT_BYTES, timeout: float | None = DEFAULT_TIMEOUT_S
) -> tuple[str, int]:
    """The blocking twin of :func:`execute_subprocess_async`.

    It may be called anywhere, also from a thread that runs an event loop, which it then blocks. Ctrl-C kills the tree.

    Returns:
        The output, and how many bytes the command wrote, kept or not.

    Raises:
        TimeoutError: It took longer; its whole tree is dead.
        ProcessStartError: It could not be started.
    """
    result = _run_blocking(cmd, max_output_size, timeout)
    return result.stdout_text, result.stdout_bytes


@contextlib.asynccontextmanager
async def stream_subprocess(
    cmd: Sequence[str],
    max_output_size: int = DEFAULT_MAX_OUTPUT_BYTES,
    timeout: float | None = DEFAULT_TIMEOUT_S,
    *,
    by: PieceKind = "line",
) -> AsyncIterator[OutputStream]:
    """Run a command and iterate over its output while it runs; see :meth:`ProcessManager.stream`.

    The result, with ``timed_out`` rather than a TimeoutError, is in ``stream.result`` after the last piece.
    """
    async with ProcessManager() as manager, manager.stream(_spec(cmd, max_output_size, timeout), by=by) as stream:
        yield stream


async def _run(cmd: Sequence[str], max_output_size: int, timeout: float | None) -> CommandResult:
    async with ProcessManager() as manager:
        result = await manager.run(_spec(cmd, max_output_size, timeout))
    if result.timed_out:
        raise TimeoutError(f"{cmd[0]!r} ran longer than {timeout} s")
    return result


def _run_blocking(cmd: Sequence[str], max_output_size: int, timeout: float | None) -> CommandResult:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_run(cmd, max_output_size, timeout))
    return _run_in_thread(_run(cmd, max_output_size, timeout))


def _run_in_thread(run: Coroutine[Any, Any, CommandResult]) -> CommandResult:
    """Run a coroutine on an event loop of its own and block until it ends; Ctrl-C cancels it."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def announced() -> CommandResult:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        started.set_result((asyncio.get_running_loop(), task))
        return await run

    with ThreadPoolExecutor(max_workers=1) as thread:
        ended = thread.submit(asyncio.run, announced())
        try:
            return ended.result()
        except BaseException:
            loop, task = started.result()
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                loop.call_soon_threadsafe(task.cancel)
            raise


def _spec(cmd: Sequence[str], max_output_size: int, timeout: float | None) -> CommandSpec:
    return CommandSpec(command=cmd, max_output_bytes=max_output_size, timeout_s=timeout, grace_s=0)
