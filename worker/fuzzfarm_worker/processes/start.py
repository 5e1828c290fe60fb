"""Starts a process that is kept: three pipes, two of them drained from the first moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from fuzzfarm_worker.processes.command import checked_command, checked_env
from fuzzfarm_worker.processes.drain import DrainTools, PipeDrain
from fuzzfarm_worker.processes.process import ManagedProcess, OutputReader
from fuzzfarm_worker.processes.spawner import Spawner, SpawnRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzzfarm_worker.processes.config import ProcessConfig


async def start_managed(
    spawner: Spawner, tools: DrainTools, config: ProcessConfig, on_activity: Callable[[int], None]
) -> ManagedProcess:
    """Start ``config`` and tell ``on_activity`` its pid whenever it writes something.

    Raises:
        ProcessStartError: It could not be started.
    """
    command = checked_command(config.command)
    env = checked_env(command, config.env)
    cwd = os.fspath(config.cwd) if config.cwd is not None else os.getcwd()
    pids: list[int] = []  # known only after the first output may have come

    def after_read() -> None:
        for pid in pids:
            on_activity(pid)

    with contextlib.ExitStack() as child_ends, contextlib.ExitStack() as undo:
        stdin_reader, stdin_writer = _pipe(keep=child_ends, theirs=0)
        stdin = await _stream_writer(stdin_writer)
        undo.callback(stdin.transport.abort)
        readers, drains, writers = [], [], []
        for _ in ("stdout", "stderr"):
            writer, reader_fd = _pipe(keep=child_ends, theirs=1)
            reader = OutputReader()
            drain = PipeDrain(reader_fd, reader, tools, after_read)
            undo.callback(drain.close)
            writers.append(writer)
            readers.append(reader)
            drains.append(drain)
        request = SpawnRequest(command, cwd, env, stdin_reader, writers[0], writers[1], config.limits)
        child = await spawner.spawn(request)
        undo.pop_all()
    pids.append(child.pid)
    return ManagedProcess(
        child, command=command, name=config.name, stdin=stdin, stdout=readers[0], stderr=readers[1], drains=drains
    )


def _pipe(*, keep: contextlib.ExitStack, theirs: int) -> tuple[int, int]:
    """The child's end, closed by ``keep``, and ours."""
    ends = os.pipe()
    keep.callback(os.close, ends[theirs])
    return ends[theirs], ends[1 - theirs]


async def _stream_writer(fd: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    # The protocol of a socket stream, because only that one lets wait_closed() work.
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    transport, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(fd, "wb", buffering=0))
    return asyncio.StreamWriter(transport, protocol, None, loop)
