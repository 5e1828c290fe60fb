"""Pipes through asyncio's own transports: for Windows, where a pipe is not a descriptor that can be polled."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from fuzzfarm_worker.processes.pipes import stream_writer

if sys.platform == "win32":
    import msvcrt
    from asyncio import windows_utils

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzzfarm_worker.processes.pipes import Drain, Sink

#: How long the rest of a pipe may take to arrive after its writers ended: it is in memory already.
FINISH_WAIT_S = 2.0


class PipeEnds(NamedTuple):
    """Both ends of a new pipe: what asyncio connects to, and the child's descriptor."""

    ours: object
    theirs: int


def new_pipe(*, child_writes: bool) -> PipeEnds:
    """A pipe whose end for us suits asyncio's event loop on this system."""
    if sys.platform == "win32":
        # asyncio needs overlapped handles on its own side, programs need plain ones on theirs.
        reader, writer = windows_utils.pipe(duplex=False, overlapped=(child_writes, not child_writes))
        ours, theirs = (reader, writer) if child_writes else (writer, reader)
        return PipeEnds(windows_utils.PipeHandle(ours), msvcrt.open_osfhandle(theirs, 0))
    reader_fd, writer_fd = os.pipe()
    if child_writes:
        return PipeEnds(os.fdopen(reader_fd, "rb", buffering=0), writer_fd)
    return PipeEnds(os.fdopen(writer_fd, "wb", buffering=0), reader_fd)


class TransportPipes:
    """Pipes that asyncio's own event loops can serve (uvloop's cannot; it does not exist on Windows)."""

    def __init__(self) -> None:
        self.null = os.open(os.devnull, os.O_RDWR)

    async def open_output(self, sink: Sink, after_read: Callable[[], None] | None = None) -> tuple[TransportDrain, int]:
        """See :meth:`Pipes.open_output`."""
        ends = new_pipe(child_writes=True)
        drain = TransportDrain(sink, after_read)
        await asyncio.get_running_loop().connect_read_pipe(lambda: drain, ends.ours)
        return drain, ends.theirs

    async def open_input(self) -> tuple[asyncio.StreamWriter, int]:
        """See :meth:`Pipes.open_input`."""
        ends = new_pipe(child_writes=False)
        return await stream_writer(ends.ours), ends.theirs

    def begin_soon(self, drain: Drain) -> None:
        """See :meth:`Pipes.begin_soon`; transports have begun already."""
        drain.begin()

    def close(self) -> None:
        """Close the null device."""
        os.close(self.null)


class TransportDrain(asyncio.Protocol):
    """Moves what a transport receives into a sink."""

    def __init__(self, sink: Sink, after_read: Callable[[], None] | None) -> None:
        self._sink = sink
        self._after_read = after_read
        self._transport: asyncio.ReadTransport | None = None
        self._closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is open."""
        assert isinstance(transport, asyncio.ReadTransport)  # noqa: S101 - for the type checker
        self._transport = transport

    def begin(self) -> None:
        """See :meth:`Drain.begin`; asyncio reads from the moment it knows the pipe."""

    def data_received(self, data: bytes) -> None:
        """The next bytes came."""
        self._sink.feed(memoryview(data))
        if self._after_read is not None:
            self._after_read()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The pipe is closed; an error in reading it is its end too."""
        self._sink.close()
        if not self._closed.done():
            self._closed.set_result(None)

    def pause(self) -> None:
        """See :meth:`Drain.pause`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """See :meth:`Drain.resume`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def finish(self) -> None:
        """See :meth:`Drain.finish`."""
        self.resume()
        self._closed.get_loop().call_later(FINISH_WAIT_S, self.close)

    async def ended(self) -> None:
        """See :meth:`Drain.ended`."""
        await asyncio.wait([self._closed])

    def close(self) -> None:
        """See :meth:`Drain.close`."""
        if self._transport is not None:
            self._transport.close()
