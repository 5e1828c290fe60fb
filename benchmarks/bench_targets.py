"""Functions that the benchmarked workers import by name."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import time
from typing import Any

NOTE = struct.Struct("=cIxxxd")
"""A note of `noted_pause`: STARTED or ENDED, the number of the operation, the monotonic time."""

STARTED, ENDED = b"+", b"-"

_files: dict[tuple[int, str], int] = {}
"""Descriptors of the files of notes, by the process that writes them and their folder."""


async def no_op(value: Any = None) -> Any:
    return value


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def long_sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def noted_pause(folder: str, number: int, seconds: float) -> int:
    """Pause, and note the start and the end in a file of this process."""
    _note(folder, STARTED, number)
    await asyncio.sleep(seconds)
    _note(folder, ENDED, number)
    return number


def pause_or_crash(seconds: float, crash: bool) -> None:
    """Pause, or read from address 0."""
    if crash:
        ctypes.string_at(0)
    time.sleep(seconds)


def spin(loops: int) -> int:
    """Keep a core busy for a while, without help from C."""
    total = 0
    for number in range(loops):
        total += number & 7
    return total


def _note(folder: str, mark: bytes, number: int) -> None:
    writer = (os.getpid(), folder)
    if writer not in _files:
        _files[writer] = os.open(os.path.join(folder, str(writer[0])), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(_files[writer], NOTE.pack(mark, number, time.monotonic()))
