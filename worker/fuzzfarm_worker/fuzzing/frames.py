"""Messages between a worker and its children: msgpack values, one after another on a stream socket.

Plain msgpack on both sides: decoding never makes anything but None, booleans, numbers, text, bytes, lists and maps.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Self

import msgpack

MAX_FRAME_BYTES = 4_000_000
"""Largest message that is decoded: far above a finding with all its parts at their limits."""

READ_BYTES = 262_144
"""One read: a few thousand small messages."""


def packer() -> Callable[[Any], bytes]:
    """Return what makes the frame of a message; one for each channel, since two threads must not share it."""
    # Paths and messages of targets may hold lone surrogates, which strict UTF-8 cannot carry.
    return msgpack.Packer(unicode_errors="surrogatepass").pack  # type: ignore[no-any-return]


def pack(message: Any) -> bytes:
    """Return the frame of one message."""
    return packer()(message)


def unpacker() -> msgpack.Unpacker:
    """Return a decoder with our bounds."""
    return msgpack.Unpacker(max_buffer_size=MAX_FRAME_BYTES, strict_map_key=False, unicode_errors="surrogatepass")


class Channel:
    """The worker's end: messages as they come, without blocking the loop."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected stream socket; `open` starts reading."""
        connection.setblocking(False)
        self._socket = connection
        self._pack = packer()
        self._unpacker = unpacker()
        self._messages: deque[Any] = deque()
        self._woken = asyncio.get_running_loop().create_future()
        self._until = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self.ended = False
        """Whether the other side is gone and everything it sent was read."""

    def open(self) -> Self:
        """Start reading on the running loop."""
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        return self

    def drain(self) -> None:
        """Read all that is there now."""
        while self._read():
            pass

    def _read(self) -> bool:
        """Read once, and wake who waits; returns whether there may be more."""
        if self.ended:
            return False
        try:
            received = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except ConnectionError:
            received = b""
        try:
            self._unpacker.feed(received)
            self._messages.extend(self._unpacker)
        except (ValueError, msgpack.UnpackException):
            received = b""  # the target wrote to our socket: nothing more of this child can be believed
        if not received:
            self._end()
        elif self._messages:
            self.wake()
        return bool(received)

    def _end(self) -> None:
        self.ended = True
        asyncio.get_running_loop().remove_reader(self._socket)
        self.wake()

    def send(self, message: Any) -> None:
        """Send a message; ours are far smaller than the socket's buffer, and the child is idle when we do."""
        try:
            self._socket.sendall(self._pack(message))
        except ConnectionError:
            self.wake()  # the reader learns of the end by itself

    def pop(self) -> Any:
        """Return the next message that has come, or None."""
        return self._messages.popleft() if self._messages else None

    async def wait(self, timeout_s: float) -> None:
        """Return when there is a message, `wake` is called, or the time is over; for one caller at a time."""
        if self._messages:
            return
        loop = asyncio.get_running_loop()
        self._woken = loop.create_future()
        self._until = loop.time() + timeout_s
        # The alarm of an earlier wait stays set: 0.88x of a round trip with a timer of its own, 0.77x of `timeout()`.
        if self._alarm is None or self._alarm.when() > self._until:
            self._set_alarm()
        await self._woken

    def wake(self) -> None:
        """Make `wait` return."""
        if not self._woken.done():
            self._woken.set_result(None)

    def _set_alarm(self) -> None:
        self._clear_alarm()
        self._alarm = asyncio.get_running_loop().call_at(self._until, self._ring)

    def _clear_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        """Wake who has waited long enough; who began to wait after the alarm was set has not."""
        self._alarm = None
        if self._woken.done():
            return
        if asyncio.get_running_loop().time() < self._until:
            self._set_alarm()
        else:
            self.wake()

    def close(self) -> None:
        """Stop reading and close the socket."""
        if not self.ended:
            self._end()
        self._clear_alarm()
        self._socket.close()


class BlockingChannel:
    """The child's end: blocking, one message at a time."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected stream socket."""
        self._socket = connection
        self._pack = packer()
        self._unpacker = unpacker()

    def send(self, message: Any) -> None:
        """Send a message; blocks while the worker does not read."""
        self._socket.sendall(self._pack(message))

    def receive(self) -> Any:
        """Return the next message; None when the worker is gone."""
        while True:
            for message in self._unpacker:
                return message
            received = self._socket.recv(READ_BYTES)
            if not received:
                return None
            self._unpacker.feed(received)
