"""Pipes to a child, emptied from their first moment, so that it never blocks on output nobody reads."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import sys
from typing import TYPE_CHECKING, Protocol

if sys.platform == "linux":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable

#: One read takes this much; with a pipe of the same size it is 4x a StreamReader (64 KiB reads).
READ_BYTES = 1024 * 1024
#: Most programs end sooner than this after their start, and what they wrote is then read from their pipes (64 KiB each)
#: in one go: never asking the event loop to watch those pipes saves a third of the worker's CPU per program.
PATIENCE_S = 0.005
#: A read that brings this much marks a talkative child, whose pipe is worth growing to READ_BYTES.
TALKATIVE_BYTES = 32 * 1024
#: A pipe that is not about to be full is left alone for so long after a read: to wake up for every 4 KiB that a program
#: flushes costs the worker 3x the CPU, and the program a tenth more.
REST_S = 0.002
#: Half of what fills a pipe of READ_BYTES within REST_S: what comes faster is read without a rest.
FLOOD_BYTES_PER_S = READ_BYTES / REST_S / 2


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


class Drain(Protocol):
    """Moves what a child writes into a sink, once it was told to begin."""

    def begin(self) -> None:
        """Read whenever there is something; nothing happens when it has begun or ended."""
        ...

    def pause(self) -> None:
        """Leave further bytes in the pipe; the child blocks when it is full."""
        ...

    def resume(self) -> None:
        """Read again after :meth:`pause`."""
        ...

    def finish(self) -> None:
        """The tree has ended: take what is left in the pipe, within a bound, and close it."""
        ...

    async def ended(self) -> None:
        """Return when the sink has everything, after :meth:`finish`."""
        ...

    def close(self) -> None:
        """Stop reading; the sink learns that the stream has ended."""
        ...


class Pipes(Protocol):
    """Makes the pipes of one event loop. The caller closes the child's ends."""

    null: int
    """A descriptor of the null device, for reading and writing."""

    async def open_output(self, sink: Sink, after_read: Callable[[], None] | None = None) -> tuple[Drain, int]:
        """A drain into ``sink`` and the child's end; ``after_read`` is called whenever something came."""
        ...

    async def open_input(self) -> tuple[asyncio.StreamWriter, int]:
        """A stream to the child and the child's end."""
        ...

    def begin_soon(self, drain: Drain) -> None:
        """Begin within ``PATIENCE_S``, unless the program has ended by then."""
        ...

    def close(self) -> None:
        """Release what all pipes share; open pipes are not touched."""
        ...


class FastPipes:
    """Pipes that are read straight from their descriptors (Linux and macOS)."""

    def __init__(self) -> None:
        # Anonymous memory is taken from the system only as far as reads fill it.
        self.buffer = memoryview(mmap.mmap(-1, READ_BYTES))
        self.null = os.open(os.devnull, os.O_RDWR)
        self._waiting: list[Drain] = []

    async def open_output(self, sink: Sink, after_read: Callable[[], None] | None = None) -> tuple[PipeDrain, int]:
        """See :meth:`Pipes.open_output`."""
        reader, writer = os.pipe()
        return PipeDrain(reader, sink, self, after_read), writer

    async def open_input(self) -> tuple[asyncio.StreamWriter, int]:
        """See :meth:`Pipes.open_input`."""
        reader, writer = os.pipe()
        try:
            return await stream_writer(os.fdopen(writer, "wb", buffering=0)), reader
        except BaseException:
            os.close(reader)
            raise

    def begin_soon(self, drain: Drain) -> None:
        """See :meth:`Pipes.begin_soon`; one timer serves all drains."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(PATIENCE_S, self._begin_waiting)
        self._waiting.append(drain)

    def _begin_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for drain in waiting:
            drain.begin()

    def close(self) -> None:
        """Close the null device."""
        os.close(self.null)


class PipeDrain:
    """Reads one pipe into a sink whenever the event loop finds bytes in it; owns the descriptor."""

    def __init__(self, fd: int, sink: Sink, pipes: FastPipes, after_read: Callable[[], None] | None) -> None:
        self._fd = fd
        self._sink = sink
        self._pipes = pipes
        self._after_read = after_read
        self._loop = asyncio.get_running_loop()
        self._grown = False
        self._open = True
        self._begun = False
        self._resting: asyncio.TimerHandle | None = None
        self._recent = 0  # bytes since `_since`, by the loop's clock
        self._since = self._loop.time()
        os.set_blocking(fd, False)

    def begin(self) -> None:
        """See :meth:`Drain.begin`."""
        if self._open and not self._begun:
            self._begun = True
            self._loop.add_reader(self._fd, self._ready)

    def _ready(self) -> None:
        count = self._read()
        if count == 0:
            self.close()
        elif self._begun and self._is_slow(count):  # a callback may have paused it
            self._loop.remove_reader(self._fd)
            self._resting = self._loop.call_later(REST_S, self._rested)

    def _is_slow(self, count: int) -> bool:
        """Whether the last so many bytes came slowly; told every REST_S, because a flood, too, has small reads."""
        self._recent += count
        now = self._loop.time()
        elapsed_s = now - self._since
        if elapsed_s < REST_S:
            return False
        slow = self._recent < FLOOD_BYTES_PER_S * elapsed_s
        self._recent, self._since = 0, now
        return slow

    def _rested(self) -> None:
        self._resting = None
        self._loop.add_reader(self._fd, self._ready)

    def _read(self) -> int:
        """Move what is there, up to 1 MiB; return how much, 0 at the end of the stream."""
        if sys.platform == "linux" and self._sink.counts_only:
            # splice never copies the bytes: 15 % faster than reading them.
            count = os.splice(self._fd, self._pipes.null, READ_BYTES, flags=os.SPLICE_F_NONBLOCK)
            self._sink.skip(count)
        else:
            count = os.readv(self._fd, [self._pipes.buffer])
            if count:
                self._sink.feed(self._pipes.buffer[:count])
        if count >= TALKATIVE_BYTES and not self._grown:
            self._grow()
        if count and self._after_read is not None:
            self._after_read()
        return count

    def _grow(self) -> None:
        self._grown = True
        if sys.platform == "linux":
            # Over the user's share of pipe memory (pipe-user-pages-soft) the kernel refuses; 64 KiB works too.
            with contextlib.suppress(PermissionError):
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, READ_BYTES)

    def pause(self) -> None:
        """See :meth:`Drain.pause`."""
        if self._open and self._begun:
            self._begun = False
            self._leave()

    def resume(self) -> None:
        """See :meth:`Drain.resume`."""
        self.begin()

    def finish(self) -> None:
        """See :meth:`Drain.finish`; all that can come is in the pipe already."""
        with contextlib.suppress(BlockingIOError):
            while self._open and self._read():
                pass
        self.close()

    async def ended(self) -> None:
        """See :meth:`Drain.ended`; :meth:`finish` leaves nothing to wait for."""

    def close(self) -> None:
        """See :meth:`Drain.close`."""
        if not self._open:
            return
        self._open = False
        if self._begun and not self._loop.is_closed():
            self._leave()
        os.close(self._fd)
        self._sink.close()

    def _leave(self) -> None:
        if self._resting is None:
            self._loop.remove_reader(self._fd)
        else:
            self._resting.cancel()
            self._resting = None


async def stream_writer(pipe: object) -> asyncio.StreamWriter:
    """A stream to write to ``pipe``, which it owns."""
    loop = asyncio.get_running_loop()
    # The protocol of a socket stream, because only that one lets wait_closed() work.
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    transport, _ = await loop.connect_write_pipe(lambda: protocol, pipe)
    return asyncio.StreamWriter(transport, protocol, None, loop)
