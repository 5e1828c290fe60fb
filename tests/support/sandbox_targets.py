"""Functions that tests call in sandboxed children."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fuzzfarm_worker.sandbox.confinement import RLIMIT_LOCKS

_seen = 0


def echo(value: Any = None, **options: Any) -> Any:
    return [value, options] if options else value


async def echo_async(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def leave_a_task_behind(path: str) -> None:
    async def late() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        Path(path).touch()

    asyncio.get_running_loop().create_task(late(), name="late")


def pid(_: Any = None) -> int:
    return os.getpid()


def wait_and_pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def count_calls() -> int:
    global _seen  # noqa: PLW0603 - a child keeps its module
    _seen += 1
    return _seen


def note(path: str, number: int, how: str) -> int:
    """Leave a line, then end in the given way."""
    with open(path, "a") as file:
        file.write(f"{number}\n")
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise ValueError(number)
    if how == "hang":
        time.sleep(1000)
    return number


def crash(text: str) -> None:
    print(text)
    ctypes.string_at(0)


def tell_and_wait(path: str) -> None:
    """Write our pid, then hang, deaf to polite signals."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(f"{path}.part").write_text(str(os.getpid()))
    os.rename(f"{path}.part", path)
    while True:
        time.sleep(1000)


def start_and_exit(path: str, tag: int | None = None) -> None:
    """Start a program in a session of its own, write its pid, and end.

    With a `tag`, the program does not carry that by which the zygote knows what comes from us.
    """
    if tag is not None:
        resource.setrlimit(RLIMIT_LOCKS, (tag, resource.RLIM_INFINITY))
    program = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL)
    Path(path).write_text(str(program.pid))
    os._exit(4)


def fork_and_return() -> str:
    """Return twice."""
    return "child" if os.fork() == 0 else "parent"


def allocate(size_bytes: int) -> int:
    return len(bytearray(size_bytes))


def surroundings() -> dict[str, Any]:
    """What a child finds."""
    # Not by `subprocess`, which closes what it does not hand down.
    os.system("ls -l /proc/self/fd >inherited")
    kinds = {number: os.fstat(number).st_mode for number in map(int, os.listdir("/proc/self/fd")) if _is_open(number)}
    return {
        "variables": list(os.environ),
        "input": sys.stdin.read(),
        "leads_its_session": os.getsid(0) == os.getpid(),
        "inherited": Path("inherited").read_text().count("socket:"),
        "sockets": sum(stat.S_ISSOCK(mode) for mode in kinds.values()),
    }


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def write_into_every_socket() -> None:
    for number in range(3, 100):
        if _is_open(number) and stat.S_ISSOCK(os.fstat(number).st_mode):
            socket.socket(fileno=number).send(b"\xff" * 100)


def kill_zygote() -> None:
    kill_and_wait(os.getppid())


def kill_and_wait(victim: int) -> None:
    os.kill(victim, signal.SIGKILL)
    time.sleep(1000)


def compute(seconds: float) -> int:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return os.getpid()
