"""Starts programs from the worker itself, where there is no guardian.

What is lost without it: a program that leaves its group (``setsid``, a daemon) survives a stop, every program survives
a ``kill -9`` of the worker, a limit costs the start of an interpreter, and a working directory is entered by its name,
right after it was found to lie below its root.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from fuzzfarm_worker.processes import limited
from fuzzfarm_worker.processes.errors import ProcessStartError
from fuzzfarm_worker.processes.limits import NO_LIMITS
from fuzzfarm_worker.processes.platform import Platform, current_platform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuzzfarm_worker.processes.spawner import Exit, SpawnRequest


class LocalChild:
    """A program that is a child of the worker."""

    def __init__(self, process: subprocess.Popen[bytes], platform: Platform) -> None:
        self._process = process
        self._platform = platform
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        platform.watch(process, self._on_exit)

    @property
    def pid(self) -> int:
        """Process id of the leader."""
        return self._process.pid

    def _on_exit(self) -> None:
        exit_ = self._platform.collect(self._process)
        if not self.exited.done():
            self.exited.set_result(exit_)

    def signal(self, signum: int) -> None:
        """Signal the leader's group; nothing happens when the leader has ended."""
        if not self.exited.done():
            self._platform.signal(self._process, signum)

    def kill_tree(self) -> None:
        """Kill the leader's group."""
        if not self.exited.done():
            self._platform.kill_tree(self._process)


class LocalSpawner:
    """Starts programs with :class:`subprocess.Popen`, never with ``preexec_fn``."""

    def __init__(self, platform: Platform | None = None) -> None:
        self._platform = platform or current_platform()
        self._children: set[LocalChild] = set()
        self.closed = False

    async def spawn(self, request: SpawnRequest) -> LocalChild:
        """See :meth:`Spawner.spawn`."""
        child = LocalChild(self._start(request), self._platform)
        self._children.add(child)
        child.exited.add_done_callback(lambda _: self._children.discard(child))
        return child

    def _start(self, request: SpawnRequest) -> subprocess.Popen[bytes]:
        command = list(request.command) if request.limits == NO_LIMITS else limited_command(request)
        try:
            return subprocess.Popen(
                command,
                cwd=request.cwd,
                env=dict(request.env),
                stdin=request.stdin,
                stdout=request.stdout,
                stderr=request.stderr,
                **self._platform.popen_options(),
            )
        except (OSError, ValueError) as error:
            raise ProcessStartError(request.command, start_failure(request, error)) from error

    def close(self) -> None:
        """Kill what is left."""
        self.closed = True
        for child in list(self._children):
            child.kill_tree()


def start_failure(request: SpawnRequest, error: OSError | ValueError) -> str:
    """The reason in words; Popen reports a missing directory like a missing program."""
    if not os.path.isdir(request.cwd):
        return f"working directory {request.cwd!r}: not a directory"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def limited_command(request: SpawnRequest) -> Sequence[str]:
    """The command behind the interpreter that limits it.

    Raises:
        ProcessStartError: There is no such program, or this system has no limits.
    """
    if sys.platform == "win32":
        raise ProcessStartError(request.command, "limits are not available on Windows")
    program = request.command[0]
    path = program if "/" in program else shutil.which(program, path=request.env.get("PATH", os.defpath))
    if path is None or not os.access(os.path.join(request.cwd, path), os.X_OK):
        raise ProcessStartError(request.command, "no such executable program")
    values = ",".join("" if value is None else str(value) for value in request.limits.as_tuple())
    return [sys.executable, "-I", "-S", limited.__file__, values, path, *request.command[1:]]
