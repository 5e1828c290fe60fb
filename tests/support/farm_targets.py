"""Functions that workers of the tests import by name."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from operator import add as borrowed_add  # noqa: F401 - a name that comes from another module
from pathlib import Path
from typing import Any


def echo(value: Any = None) -> Any:
    return value


async def echo_async(value: Any = None) -> Any:
    return value


def fail(message: str) -> None:
    raise ValueError(message)


def refuse_odd(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


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


async def note_and_pause(folder: str, name: str, seconds: float) -> str:
    """Leave a line for each execution, and take a while."""
    note(folder, name)
    await asyncio.sleep(seconds)
    return name


def append_word(folder: str, word: str) -> None:
    """Leave a word behind those that are there, so that a test sees the order of executions."""
    with (Path(folder) / "order").open("a") as file:
        file.write(f"{word}\n")


async def note_and_wait_for(folder: str, name: str, release: str) -> str:
    """Tell that we run, then wait until the test lets us end."""
    note(folder, name)
    while not (Path(folder) / release).exists():
        await asyncio.sleep(0.01)
    return name


def note_and_block_until(folder: str, name: str, release: str) -> str:
    """The same in a thread."""
    note(folder, name)
    while not (Path(folder) / release).exists():
        time.sleep(0.01)
    return name


async def block_loop_once(folder: str, name: str) -> str:
    """Hold the event loop for ever when called first."""
    note(folder, name)
    if len((Path(folder) / name).read_text().splitlines()) == 1:
        time.sleep(600)  # noqa: ASYNC251 - that is the point
    return "went on"


def kill_self(_: Any = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def note_and_kill_self(folder: str, name: str) -> None:
    note(folder, name)
    kill_self()


def fuzz_nothing(number: int) -> None:
    """Find nothing."""


def fuzz_hangs(number: int) -> None:
    time.sleep(600)


def fuzz_small(number: int) -> None:
    assert number < 1000, "too large"


def fuzz_three(number: int) -> None:
    """Fail in three ways."""
    if number > 1000:
        raise KeyError("odd") if number % 2 else ValueError("even")
    if number < -1000:
        raise TypeError("low")


def fuzz_stays(number: int) -> None:
    """Fail, and where a file says so, rather stay for ever, after a note of the process."""
    folder = Path(tempfile.gettempdir())
    if number >= 1000:
        if (folder / "stay").exists():
            (folder / "pid.new").write_text(str(os.getpid()))
            (folder / "pid.new").rename(folder / "pid")
            time.sleep(600)
        raise ValueError("too large")


def fuzz_exits(number: int) -> None:
    if number % 10 == 7:
        os._exit(3)


def fuzz_crashes(number: int) -> None:
    """Crash, after a note of the thread in which that happens."""
    if number % 50 == 7:
        with Path(tempfile.gettempdir(), "crashes").open("a") as file:
            print(threading.current_thread().name, file=file, flush=True)
        ctypes.string_at(0)


def fuzz_spins_once(number: int) -> None:
    """Compute without an end where nobody did before."""
    file = Path(tempfile.gettempdir(), "spins")
    if not file.exists():
        file.touch()
        while True:
            pass


def fuzz_slowly(number: int) -> None:
    time.sleep(0.02)


def fuzz_text(text: str) -> None:
    pass


def exit_with(code: Any) -> None:
    raise SystemExit(code)


def time_out_by_itself() -> None:
    raise TimeoutError("the socket timed out")


def interrupt() -> None:
    raise KeyboardInterrupt("typed")


class MuteError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def raise_mute() -> None:
    raise MuteError


class OddBaseError(BaseException):
    """No Exception, as some test frameworks have it."""


def raise_odd() -> None:
    raise OddBaseError("odd")


def raise_group() -> None:
    raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])


def raise_stop_iteration() -> None:
    raise StopIteration("stop")


def raise_stop_async_iteration(_: Any = None) -> None:
    raise StopAsyncIteration("not the end")


async def raise_cancelled() -> None:
    raise asyncio.CancelledError("by itself")


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1)


def fail_with_long_message() -> None:
    raise ValueError("x" * 1_000_000)


async def swallow_cancellation(seconds: float) -> str:
    """Ends well whatever one does to stop it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await asyncio.sleep(end - time.monotonic())
        except asyncio.CancelledError:
            continue
    return "ended in spite of it"


def fail_before(folder: str, name: str, tries: int) -> int:
    """Fail until it was called `tries` times; return how often it was."""
    note(folder, name)
    count = len((Path(folder) / name).read_text().splitlines())
    if count < tries:
        raise ValueError(f"try {count}")
    return count


def environment(_: Any = None) -> dict[str, str]:
    return dict(os.environ)


def print_much(_: Any = None) -> str:
    print("x" * 100_000)
    return "printed"


class Box:
    """Holds a method that can be named."""

    @staticmethod
    def double(number: int) -> int:
        return 2 * number

    class Inner:
        @staticmethod
        def double(number: int) -> int:
            return 2 * number


NOT_CALLABLE = 7


def overlap(folder: str) -> int:
    """How many of us run now, ourselves included."""
    with _presence(folder) as count:
        time.sleep(0.1)
        return count


async def overlap_async(folder: str) -> int:
    with _presence(folder) as count:
        await asyncio.sleep(0.1)
        return count


overlap_partial = functools.partial(overlap)


@contextlib.contextmanager
def _presence(folder: str) -> Iterator[int]:
    descriptor, path = tempfile.mkstemp(dir=folder)
    os.close(descriptor)
    try:
        yield len(os.listdir(folder))
    finally:
        os.unlink(path)
