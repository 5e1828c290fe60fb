"""Lines of standard input as they come, without holding up the event loop or whoever leaves."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from queue import SimpleQueue

READ_BYTES = 65_536
"""A pipe holds no more."""

THREAD = "fuzzfarm-stdin"
"""Name of the thread that reads."""


async def lines_of(descriptor: int) -> AsyncIterator[str]:
    """Yield lines without their ends; bytes that are no UTF-8 become lone surrogates, as in file names.

    No more than one read is ahead. Leaving early, by cancellation too, may leave a daemon thread in its read. It reads
    the descriptor and not `sys.stdin`, inside which a waiting thread breaks the end of the interpreter.

    Raises:
        OSError: when it cannot be read.
    """
    reads: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def deliver(data: bytes | OSError) -> None:
        loop.call_soon_threadsafe(reads.put_nowait, data)

    wanted: SimpleQueue[bool] = SimpleQueue()
    threading.Thread(target=_read, args=(descriptor, wanted, deliver), name=THREAD, daemon=True).start()
    rest = b""
    try:
        wanted.put(True)
        while data := await reads.get():
            if isinstance(data, OSError):
                raise data
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield _text(line)
            wanted.put(True)
        if rest:
            yield _text(rest)
    finally:
        wanted.put(False)


def _read(descriptor: int, wanted: SimpleQueue[bool], deliver: Callable[[bytes | OSError], None]) -> None:
    """Read once for each time that it is wanted, until it is not."""
    with suppress(RuntimeError):  # the event loop is closed: nobody wants more
        while wanted.get():
            try:
                deliver(os.read(descriptor, READ_BYTES))
            except OSError as exc:
                deliver(exc)


def _text(line: bytes) -> str:
    return os.fsdecode(line.removesuffix(b"\r"))
