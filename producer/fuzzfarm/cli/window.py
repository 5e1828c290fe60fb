"""A bounded number of operations under way: each outcome lets in one more."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType

from fuzzfarm.feed import Feed, Operations, PayloadFeed
from fuzzfarm.submission import PAYLOADS_PER_BATCH
from fuzzfarm_shared.payloads import PayloadBuilder


class Window(PayloadFeed):
    """Gives operations to a submission only while fewer than so many are without an outcome.

    Args:
        operations: the input, read lazily.
        most: how many may be under way; None: any number.
    """

    def __init__(self, operations: Operations, most: int | None) -> None:
        self._feed = Feed(operations)
        self._room = sys.maxsize if most is None else most
        self._at_once = max(1, self._room // PAYLOADS_PER_BATCH)  # so that several workers get some of them
        self._changed = asyncio.Event()
        self._closed = False

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._feed.__aexit__(exc_type, exc, traceback)

    async def fill(self, builder: PayloadBuilder, limit: int, *, patient: bool = False) -> bool:
        """See `PayloadFeed.fill`; what is `patient` was submitted before, and is under way already."""
        if not patient:
            limit = min(limit, self._at_once, await self._some_room())
        if self._closed:
            return True
        before = len(builder)
        try:
            return await self._feed.fill(builder, limit, patient=patient)
        finally:
            self._room -= len(builder) - before

    async def _some_room(self) -> int:
        while self._room < 1 and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        return self._room

    def let_in(self) -> None:
        """Note an outcome."""
        self._room += 1
        self._changed.set()

    def close(self) -> None:
        """See `PayloadFeed.close`."""
        self._closed = True
        self._changed.set()
