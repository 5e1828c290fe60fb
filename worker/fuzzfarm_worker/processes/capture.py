"""A bounded record of what a child wrote: exact to the byte, and it knows what it left out."""

from __future__ import annotations

import contextlib
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_UTF8_MAX_BYTES = 4
# First bytes that can begin a character of several bytes (RFC 3629).
_MIN_LEAD, _MAX_LEAD = 0xC2, 0xF4
_CONTINUATIONS = bytes(range(0x80, 0xC0))


class Capture:
    """Keeps the beginning of a stream and, if asked, its end; counts all of it.

    Args:
        limit_bytes: Most bytes kept in all.
        tail_bytes: How many of them are for the end of the stream.
        on_data: Called with every piece as it comes; it must copy what it keeps, and must not raise.
    """

    def __init__(
        self,
        limit_bytes: int,
        *,
        tail_bytes: int = 0,
        on_data: Callable[[memoryview], None] | None = None,
    ) -> None:
        self.total_bytes = 0
        self._head = BytesIO()  # hands out its buffer without a copy, unlike a bytearray
        self._tail = bytearray()
        self._tail_limit = min(tail_bytes, limit_bytes)
        self._room = limit_bytes - self._tail_limit
        self._on_data = on_data
        self._follow_bytes = 0
        self._newest = b""

    @property
    def kept_bytes(self) -> int:
        """How many bytes :meth:`value` has."""
        return self._head.tell() + min(len(self._tail), self._tail_limit)

    @property
    def head_bytes(self) -> int:
        """How many of them are the beginning; the others are the end."""
        return self._head.tell()

    @property
    def truncated(self) -> bool:
        """Some of the stream was not kept."""
        return self.total_bytes > self.kept_bytes

    @property
    def counts_only(self) -> bool:
        """Nothing looks at further bytes, so they need not be copied out of the kernel."""
        looks = self._tail_limit or self._follow_bytes or self._on_data is not None
        return self._room <= 0 and not looks

    def feed(self, data: memoryview) -> None:
        """Take the next bytes of the stream."""
        self.total_bytes += len(data)
        if self._on_data is not None:
            self._on_data(data)
        room = self._room
        if room > 0:
            self._room -= self._head.write(data[:room])
        if len(data) > room:
            if self._tail_limit:
                self._keep_tail(data[room:])
            elif self._follow_bytes:
                self._newest = (self._newest + data[-self._follow_bytes :])[-self._follow_bytes :]

    def skip(self, count: int) -> None:
        """Count bytes that were thrown away unseen."""
        self.total_bytes += count

    def _keep_tail(self, data: memoryview) -> None:
        self._tail += data[-self._tail_limit :]
        # Twice the limit before trimming: each byte is moved at most once, however small the pieces are.
        if len(self._tail) > 2 * self._tail_limit:
            del self._tail[: -self._tail_limit]

    def value(self) -> bytes:
        """The kept bytes, beginning and end joined."""
        head = self._head.getvalue()
        return head + bytes(self._tail[-self._tail_limit :]) if self._tail else head

    def newest(self, count: int) -> bytes:
        """The last ``count`` bytes seen so far, or fewer; from now on also of what is not kept."""
        if count <= 0:
            return b""
        self._follow_bytes = max(count, self._follow_bytes)
        if self._tail:
            return bytes(self._tail[-count:])
        if self.truncated:
            return self._newest[-count:]
        with self._head.getbuffer() as head:
            return bytes(head[max(0, self._head.tell() - count) : self._head.tell()])

    def close(self) -> None:
        """The stream has ended."""


def decode_text(data: bytes, *, cut_at: int | None) -> str:
    """UTF-8 text with replacement.

    Args:
        data: The bytes.
        cut_at: Where some were left out; what is left there of a character is left out, too. None: they are all there.
    """
    if cut_at is None:
        return data.decode("utf-8", "replace")
    begin = data[: whole_characters(data[:cut_at])]
    return (begin + data[cut_at + broken_characters(data[cut_at:]) :]).decode("utf-8", "replace")


def decode_newest(data: bytes) -> str:
    """UTF-8 text with replacement of the newest output, which may be cut at its beginning and is not finished."""
    return decode_text(data[: whole_characters(data)], cut_at=0)


def broken_characters(data: bytes) -> int:
    """How many bytes ``data`` begins with that end a UTF-8 character."""
    rest = data.lstrip(_CONTINUATIONS)
    return min(len(data) - len(rest), _UTF8_MAX_BYTES - 1)


def whole_characters(data: bytes) -> int:
    """Length of ``data`` without an unfinished UTF-8 character at its end."""
    for back in range(1, min(_UTF8_MAX_BYTES, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        with contextlib.suppress(UnicodeDecodeError):
            data[-back:].decode("utf-8")
            return len(data)
        return len(data) - back if _MIN_LEAD <= byte <= _MAX_LEAD and back < _sequence_length(byte) else len(data)
    return len(data)


def _sequence_length(lead: int) -> int:
    return 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2
