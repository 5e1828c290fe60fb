"""Functions that workers of the tests import by name."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any


def echo(value: Any = None) -> Any:
    return value


async def echo_async(value: Any = None) -> Any:
    return value


def fail(message: str) -> None:
    raise ValueError(message)


def unsendable(_: Any = None) -> object:
    return object()


def large(size: int) -> bytes:
    return b"x" * size


async def pause(seconds: float, value: Any = None) -> Any:
    await asyncio.sleep(seconds)
    return value


def block(seconds: float) -> None:
    time.sleep(seconds)


def worker_pid(_: Any = None) -> int:
    return os.getpid()


def note(folder: str, name: str) -> None:
    """Leave a line for each execution, so that a test can count them."""
    with (Path(folder) / name).open("a") as file:
        file.write(f"{os.getpid()}\n")


async def note_and_wait_for(folder: str, name: str, release: str) -> str:
    """Tell that we run, then wait until the test lets us end."""
    note(folder, name)
    while not (Path(folder) / release).exists():
        await asyncio.sleep(0.01)
    return name


def kill_self(_: Any = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fuzz_small(number: int) -> None:
    assert number < 1000, "too large"
