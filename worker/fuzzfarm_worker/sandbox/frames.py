"""Frames: values on a stream socket, each behind its length, as many in one read or write as there are."""

from __future__ import annotations

import struct

_LENGTH = struct.Struct("<I")

READ_BYTES = 65_536
"""One read: hundreds of small frames. More than 128 KiB would be mapped and unmapped for each."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Largest answer of a child. A worker that is told of a larger one takes the child for broken."""

MAX_REQUEST_BYTES = 2**32 - 1
"""What the length can say; operations have a smaller limit of their own."""


class BrokenStreamError(ValueError):
    """The other side wrote something else than frames."""


def framed(body: bytes) -> bytes:
    """Return `body` as it is sent."""
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts what was read into frames.

    Args:
        max_bytes: a frame that says it is longer is refused before anything of it is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self._wanted = _LENGTH.size

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that `data` completes.

        Raises:
            BrokenStreamError: for a frame that is too long.
        """
        if self._kept:
            self._kept += data
            if len(self._kept) < self._wanted:  # most of a long frame comes in many reads: do not look at each
                return []
            data = bytes(self._kept)
            self._kept.clear()
        bodies, position, end = [], 0, len(data)
        self._wanted = _LENGTH.size
        while end - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, position)
            if length > self._max_bytes:
                raise BrokenStreamError(f"a frame of {length:,} bytes, and {self._max_bytes:,} is the limit")
            behind = position + _LENGTH.size + length
            if behind > end:
                self._wanted = behind - position
                break
            bodies.append(data[position + _LENGTH.size : behind])
            position = behind
        self._kept += data[position:]
        return bodies
