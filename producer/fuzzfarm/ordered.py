"""The window of `FarmExecutor.map_iter`: what is between being read and being handed out, sent meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Any

from fuzzfarm.delivery import exception_of, rows
from fuzzfarm.feed import PayloadFeed
from fuzzfarm_shared.operations import CallGroup
from fuzzfarm_shared.outcomes import OperationError
from fuzzfarm_shared.payloads import PayloadBuilder
from fuzzfarm_shared.segments import Segment

CHUNKS_PER_WINDOW = 8
"""A window is sent in at least so many chunks: four for each of two workers, so that none waits for the consumer."""


class CallWindow(PayloadFeed):
    """A window over calls; see `fuzzfarm_shared.ordered.Window`.

    Args:
        calls: the input, read lazily.
        size: most calls in the window.
        send: starts to send the calls of this window.
    """

    def __init__(self, calls: CallGroup, size: int, send: Callable[[CallWindow], asyncio.Task[None]]) -> None:
        self.closed = False
        self._owner: asyncio.Task[None] | None = None
        self._send = send
        self._calls = calls
        self._arguments = calls.arguments()
        self._size = size
        self._chunk = max(1, size // CHUNKS_PER_WINDOW)
        self._read = 0
        self._handed_out = 0
        self._values: dict[int, Any] = {}
        self._errors: dict[int, OperationError] = {}
        self._end: BaseException | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    async def fill(self, builder: PayloadBuilder, limit: int, *, patient: bool = False) -> bool:  # noqa: ARG002
        """Append calls as soon as the window has room for a chunk; True at the end of the input."""
        while not self.closed and self._free < self._chunk:
            self._room.clear()
            await self._room.wait()
        if self.closed:
            return True
        wanted = min(limit, self._chunk)
        some = list(islice(self._arguments, wanted))
        if some:
            builder.add_calls(self._calls, some)
            self._read += len(some)
        return len(some) < wanted

    def close(self) -> None:
        """Read no further."""
        self.closed = True
        self._room.set()

    def deliver(self, segment: Segment) -> None:
        """Keep outcomes until it is their turn."""
        for position, value, error in rows(segment):
            self._values[position] = value
            if error is not None:
                self._errors[position] = error
        self._tell()

    def start(self) -> asyncio.Task[None]:
        """Start to send."""
        self._owner = self._send(self)
        return self._owner

    def stop(self) -> None:
        """Cancel what is left on the farm."""
        if self._owner is not None:
            self._owner.cancel()

    def finish(self, end: BaseException) -> None:
        """Say that nothing more comes: what is here is handed out, then `end` is raised."""
        if self._end is None:
            self._end = end
        self._arrived.set()

    async def following(self) -> Any:
        """Return the next value in the order of the input, or raise its error, or how everything ended."""
        while (position := self._handed_out) not in self._values:
            if self._end is not None:
                raise self._end
            self._arrived.clear()
            await self._arrived.wait()
        value = self._values.pop(position)
        self._handed_out += 1
        if not self._room.is_set() and self._free >= self._chunk:
            self._room.set()
        if position in self._errors:
            raise exception_of(self._errors.pop(position))
        return value

    @property
    def _free(self) -> int:
        return self._size - (self._read - self._handed_out)

    def _tell(self) -> None:
        if self._handed_out in self._values:
            self._arrived.set()
