"""Starts a process that is kept: three pipes, two of them drained from the first moment."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, TypeVar

from fuzzfarm_worker.processes.command import checked_command, checked_cwd, checked_env
from fuzzfarm_worker.processes.errors import ProcessStartError
from fuzzfarm_worker.processes.process import ManagedProcess, OutputReader
from fuzzfarm_worker.processes.spawner import Spawner, SpawnRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fuzzfarm_worker.processes.config import ProcessConfig
    from fuzzfarm_worker.processes.pipes import Drain, Pipes

T = TypeVar("T")


async def start_managed(
    spawner: Spawner, pipes: Pipes, config: ProcessConfig, on_activity: Callable[[int], None]
) -> ManagedProcess:
    """Start ``config`` and tell ``on_activity`` its pid whenever it writes something.

    Raises:
        ProcessStartError: It could not be started.
    """
    command = checked_command(config.command)
    env = checked_env(command, config.env)
    cwd = checked_cwd(command, config.cwd)
    pids: list[int] = []  # known only after the first output may have come

    def after_read() -> None:
        for pid in pids:
            on_activity(pid)

    readers = (OutputReader(), OutputReader())
    drains: list[Drain] = []
    with contextlib.ExitStack() as child_ends, contextlib.ExitStack() as undo:
        stdin, stdin_end = None, config.stdin
        if stdin_end is None:
            stdin, stdin_end = await pipes.open_input()
            child_ends.callback(os.close, stdin_end)
            undo.callback(stdin.transport.abort)
        ends = [stdin_end]
        for reader in readers:
            drain, end = await pipes.open_output(reader, after_read)
            drain.begin()
            child_ends.callback(os.close, end)
            undo.callback(drain.close)
            ends.append(end)
            drains.append(drain)
        stdin_fd, stdout_fd, stderr_fd = ends
        child = await spawner.spawn(SpawnRequest(command, cwd, env, stdin_fd, stdout_fd, stderr_fd, config.limits))
        undo.pop_all()
    pids.append(child.pid)
    return ManagedProcess(
        child, command=command, name=config.name, stdin=stdin, stdout=readers[0], stderr=readers[1], drains=drains
    )


async def as_start(command: Sequence[str], start: Awaitable[T]) -> T:
    """Await a start.

    Raises:
        ProcessStartError: Also for whatever else the operating system has refused, or cannot be told.
    """
    try:
        return await start
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ProcessStartError(command, f"{where}{error.strerror or error}") from error
    except UnicodeEncodeError as error:
        # Without the text itself, which may be a secret.
        reason = f"an argument, a variable or the working directory cannot be passed on: {error.reason}"
        raise ProcessStartError(command, reason) from error
