"""Messages between a worker and its children: msgpack values, one after another on a stream socket.

Plain msgpack on both sides: decoding never makes anything but None, booleans, numbers, text, bytes, lists and maps.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Any, Self

import msgpack

MAX_FRAME_BYTES = 4_000_000
"""Largest message that is decoded: far above a finding with all its parts at their limits."""

READ_BYTES = 262_144
"""One read: a few thousand small messages."""


def pack(message: Any) -> bytes:
    """Return the frame of a message."""
    # Paths and messages of targets may hold lone surrogates, which strict UTF-8 cannot carry.
    return msgpack.packb(message, unicode_errors="surrogatepass")  # type: ignore[no-any-return]


def unpacker() -> msgpack.Unpacker:
    """Return a decoder with our bounds."""
    return msgpack.Unpacker(max_buffer_size=MAX_FRAME_BYTES, strict_map_key=False, unicode_errors="surrogatepass")


class Channel:
    """The worker's end: messages as they come, without blocking the loop."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected stream socket; `open` starts reading."""
        connection.setblocking(False)
        self._socket = connection
        self._unpacker = unpacker()
        self._messages: deque[Any] = deque()
        self._woken = asyncio.Event()
        self.ended = False
        """Whether the other side is gone and everything it sent was read."""

    def open(self) -> Self:
        """Start reading on the running loop."""
        asyncio.get_running_loop().add_reader(self._socket, self.drain)
        return self

    def drain(self) -> None:
        """Read all that is there now."""
        while not self.ended:
            try:
                received = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                break
            except ConnectionError:
                received = b""
            if not received:
                self._end()
                break
            try:
                self._unpacker.feed(received)
                self._messages.extend(self._unpacker)
            except (ValueError, msgpack.UnpackException):
                self._end()  # the target wrote to our socket: nothing more of this child can be believed
        if self._messages:
            self._woken.set()

    def _end(self) -> None:
        self.ended = True
        asyncio.get_running_loop().remove_reader(self._socket)
        self._woken.set()

    def send(self, message: Any) -> None:
        """Send a message; ours are far smaller than the socket's buffer, and the child is idle when we do."""
        try:
            self._socket.sendall(pack(message))
        except ConnectionError:
            self._woken.set()  # the reader learns of the end by itself

    def pop(self) -> Any:
        """Return the next message that has come, or None."""
        return self._messages.popleft() if self._messages else None

    async def wait(self, timeout_s: float) -> None:
        """Return when there is a message, something ended since the last call, or the time is over."""
        if self._messages:
            return
        self._woken.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """Make `wait` return."""
        self._woken.set()

    def close(self) -> None:
        """Stop reading and close the socket."""
        if not self.ended:
            self._end()
        self._socket.close()


class BlockingChannel:
    """The child's end: blocking, one message at a time."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected stream socket."""
        self._socket = connection
        self._unpacker = unpacker()

    def send(self, message: Any) -> None:
        """Send a message; blocks while the worker does not read."""
        self._socket.sendall(pack(message))

    def receive(self) -> Any:
        """Return the next message; None when the worker is gone."""
        while True:
            for message in self._unpacker:
                return message
            received = self._socket.recv(READ_BYTES)
            if not received:
                return None
            self._unpacker.feed(received)
