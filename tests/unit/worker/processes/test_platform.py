"""The seam between operating systems, driven with real processes on this one."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest
from children import SLEEPS, python

from fuzzfarm_worker.processes import (
    LOCAL,
    Backend,
    CommandSpec,
    Limits,
    ProcessConfig,
    ProcessManager,
    ProcessStartError,
)
from fuzzfarm_worker.processes import backend as backend_module
from fuzzfarm_worker.processes.backend import default_backend
from fuzzfarm_worker.processes.local import LocalSpawner, limited_command
from fuzzfarm_worker.processes.platform import PopenOptions, PosixPlatform, WindowsPlatform, poll_for_exit
from fuzzfarm_worker.processes.spawner import SpawnRequest
from fuzzfarm_worker.processes.transport_pipes import TransportPipes


class WindowsHere(WindowsPlatform):
    """The Windows paths on a POSIX system: CTRL_BREAK_EVENT has the number of SIGHUP, and there is no taskkill."""

    def popen_options(self) -> PopenOptions:
        return {}


#: Not a shell: under ``nohup`` SIGHUP is ignored from the start, and a shell cannot trap what it found ignored. Nor
#: ``print``: a signal may interrupt it, and its handler must not call it then.
ANSWERS_CTRL_BREAK = python(
    f"""
import os, signal
def answer(*_):
    os.write(1, b"asked\\n")
    os._exit(7)
signal.signal({WindowsPlatform.CTRL_BREAK}, answer)
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""
)

WINDOWS_HERE = Backend(lambda: LocalSpawner(WindowsHere()), TransportPipes)


class PollingHere(PosixPlatform):
    """A POSIX system with neither pidfd nor kqueue."""

    def watch(self, process, on_exit):
        poll_for_exit(lambda: process.poll() is not None, on_exit)


POLLING_HERE = Backend(lambda: LocalSpawner(PollingHere()), TransportPipes)


def test_windows_puts_a_program_in_a_new_group():
    assert WindowsPlatform().popen_options() == {"creationflags": 0x200}
    if sys.platform == "win32":
        assert subprocess.CREATE_NEW_PROCESS_GROUP == 0x200
        assert signal.CTRL_BREAK_EVENT == WindowsPlatform.CTRL_BREAK


@pytest.mark.parametrize("backend", [WINDOWS_HERE, POLLING_HERE], ids=["windows", "polling"])
def test_a_command_runs(backend):
    async def main() -> None:
        async with ProcessManager(backend=backend) as manager:
            result = await manager.run(CommandSpec(command=["sh", "-c", "cat; exit 3"], stdin=b"in"))
            assert (result.stdout, result.exit_code) == (b"in", 3)

    asyncio.run(main())


def test_windows_asks_with_ctrl_break():
    async def main() -> None:
        async with ProcessManager(backend=WINDOWS_HERE) as manager:
            process = await manager.start_process(ProcessConfig(command=ANSWERS_CTRL_BREAK))
            assert await process.stdout.readline() == b"ready\n"
            assert await manager.send_timeout_signal(process.pid, "timeout")
            assert await process.wait() == 7
            assert await process.stdout.read() == b"asked\n"

    asyncio.run(main())


@pytest.mark.parametrize("backend", [WINDOWS_HERE, POLLING_HERE], ids=["windows", "polling"])
def test_force_kills(backend):
    async def main() -> None:
        async with ProcessManager(backend=backend) as manager:
            process = await manager.start_process(ProcessConfig(command=SLEEPS))
            assert await manager.stop_process(process.pid, force=True)
            assert process.returncode == -signal.SIGKILL
            result = await manager.run(CommandSpec(command=SLEEPS, timeout_s=0.1, grace_s=0))
            assert (result.timed_out, result.signal) == (True, signal.SIGKILL)

    asyncio.run(main())


def test_an_exit_is_found_by_polling():
    process = subprocess.Popen(["sleep", "0.1"])

    async def main() -> None:
        ended = asyncio.Event()
        poll_for_exit(lambda: process.poll() is not None, ended.set)
        assert not ended.is_set()
        await asyncio.wait_for(ended.wait(), 30)
        assert process.returncode == 0

    asyncio.run(main())


def test_windows_has_no_limits(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ProcessStartError, match="Windows"):
        limited_command(SpawnRequest(["true"], "/", {}, 0, 1, 2, Limits(core=0)))


def test_an_interpreter_that_does_not_know_its_path_needs_no_guardian(monkeypatch):
    monkeypatch.setattr(backend_module.sys, "executable", "")
    assert default_backend() is LOCAL
