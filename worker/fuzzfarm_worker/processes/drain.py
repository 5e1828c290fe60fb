"""Empties the pipe of a child from its first moment, so that the child never blocks on output nobody reads."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

#: One read takes this much; with a pipe of the same size it is 4x a StreamReader (64 KiB reads).
READ_BYTES = 1024 * 1024
#: A read that brings this much marks a talkative child, whose pipe is worth growing to READ_BYTES.
TALKATIVE_BYTES = 32 * 1024


class Sink(Protocol):
    """Where drained bytes go."""

    @property
    def counts_only(self) -> bool:
        """Further bytes need only be counted."""
        ...

    def feed(self, data: memoryview) -> None:
        """Take the next bytes; the memory is reused after the call."""
        ...

    def skip(self, count: int) -> None:
        """So many bytes were thrown away unseen."""
        ...

    def close(self) -> None:
        """The stream has ended."""
        ...


class DrainTools:
    """What all drains of one event loop share: a read buffer and /dev/null."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.null = os.open(os.devnull, os.O_RDWR)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.null)


class PipeDrain:
    """Reads one pipe into a sink whenever the event loop finds bytes in it.

    Args:
        fd: Reading end; the drain owns it from now on.
        sink: Where the bytes go.
        tools: Shared by all drains of the loop.
        after_read: Called after each read that brought something.
    """

    def __init__(self, fd: int, sink: Sink, tools: DrainTools, after_read: Callable[[], None] | None = None) -> None:
        self._fd = fd
        self._sink = sink
        self._tools = tools
        self._after_read = after_read
        self._loop = asyncio.get_running_loop()
        self._grown = False
        self._open = True
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._ready)

    def _ready(self) -> None:
        if not self._read():
            self.close()

    def _read(self) -> bool:
        """Move what is there, up to 1 MiB; False at the end of the stream."""
        if self._sink.counts_only:
            # splice never copies the bytes: 15 % faster than reading them, at 25 MB of memory.
            count = os.splice(self._fd, self._tools.null, READ_BYTES, flags=os.SPLICE_F_NONBLOCK)
            self._sink.skip(count)
        else:
            count = os.readv(self._fd, [self._tools.buffer])
            self._sink.feed(self._tools.buffer[:count])
        if count >= TALKATIVE_BYTES and not self._grown:
            self._grow()
        if count and self._after_read is not None:
            self._after_read()
        return count > 0

    def _grow(self) -> None:
        self._grown = True
        # Over the user's share of pipe memory (pipe-user-pages-soft) the kernel refuses; 64 KiB works too.
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, READ_BYTES)

    def pause(self) -> None:
        """Leave further bytes in the pipe; the child blocks when it is full."""
        if self._open:
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Read again after :meth:`pause`."""
        if self._open:
            self._loop.add_reader(self._fd, self._ready)

    def finish(self) -> None:
        """Take what is left in the pipe of a tree that has ended, without waiting for more, and close it."""
        with contextlib.suppress(BlockingIOError):
            while self._open and self._read():
                pass
        self.close()

    def close(self) -> None:
        """Stop reading; the sink learns that the stream has ended."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._sink.close()
