"""Submitted calls, gathered into the payloads of one batch, and their futures settled from its outcomes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any, TypeAlias

from fuzzfarm.delivery import exception_of, rows
from fuzzfarm.feed import PayloadFeed
from fuzzfarm_shared.futures import AsyncFuture
from fuzzfarm_shared.operations import CallOperation
from fuzzfarm_shared.payloads import PayloadBuilder
from fuzzfarm_shared.segments import Segment

GATHER_S = 0.002
"""How long the first of some calls waits for others. A chunk costs a worker about 1 ms, so that even a trickle of
single calls keeps it less than half busy with chunks."""

IDLE_S = 10.0
"""A batch without new calls for so long is sealed: well below the shortest `result_ttl_s`, after which it expires."""

MOST_CALLS = 1_000_000
"""A batch is sealed after so many calls: the server keeps outcomes until their whole batch expires."""

QueuedCall: TypeAlias = tuple[AsyncFuture[Any], CallOperation, list[Any], dict[str, Any] | None]
"""Future, options, arguments, keyword arguments."""


class CallQueue:
    """Calls that are not sent yet, in order; a call can leave at any place."""

    def __init__(self) -> None:
        # By future, so that cancelling one of many costs no search.
        self._calls: OrderedDict[AsyncFuture[Any], QueuedCall] = OrderedDict()
        self._changed = asyncio.Event()
        self.closed = False

    def __len__(self) -> int:
        return len(self._calls)

    def append(self, call: QueuedCall) -> None:
        """Queue a call."""
        self._calls[call[0]] = call
        self._changed.set()

    def take(self, limit: int) -> list[QueuedCall]:
        """Take up to `limit` calls out."""
        taken = list(islice(self._calls.values(), limit))
        for call in taken:
            del self._calls[call[0]]
        return taken

    def remove(self, future: AsyncFuture[Any]) -> bool:
        """Take a call out; False if it is not here."""
        return self._calls.pop(future, None) is not None

    def close(self) -> None:
        """Say that no more calls come."""
        self.closed = True
        self._changed.set()

    def wake(self) -> None:
        """End a `changed` that is waited for."""
        self._changed.set()

    async def changed(self) -> None:
        """Return when a call is queued, or the queue is closed."""
        self._changed.clear()
        await self._changed.wait()


class Gathering(PayloadFeed):
    """One batch that takes calls from the queue, until there are none for a while or it is large.

    Args:
        queue: where the calls are.
        on_end: called when it takes no further calls; some may still be in the queue.

    Attributes:
        ended: whether it takes no further calls, so that the next one needs another batch.
    """

    def __init__(self, queue: CallQueue, on_end: Callable[[], None]) -> None:
        self.ended = False
        self._on_end = on_end
        self._queue = queue
        self._sent: dict[int, AsyncFuture[Any]] = {}
        self._count = 0
        self._settled_up_to = 0

    @property
    def unwanted(self) -> bool:
        """Whether outcomes are still to come, and all of their futures have been cancelled."""
        while self._settled_up_to < self._count:  # where it was left, so that asking often costs no more than once
            future = self._sent.get(self._settled_up_to)
            if future is not None and not future.done():
                return False
            self._settled_up_to += 1
        return bool(self._sent)

    async def fill(self, builder: PayloadBuilder, limit: int, *, patient: bool = False) -> bool:  # noqa: ARG002
        """Wait for calls and append what comes within a moment; True when this batch takes no more."""
        while not len(builder) and await self._has_calls():
            if len(self._queue) < limit and not self._queue.closed:
                await asyncio.sleep(GATHER_S)
            self._take(builder, limit)
        if builder.first + len(builder) >= MOST_CALLS or (self._queue.closed and not self._queue):
            self._end()
        return self.ended

    def close(self) -> None:
        """Take no further calls."""
        self._end()
        self._queue.wake()

    def deliver(self, segment: Segment) -> None:
        """Settle the futures of some outcomes."""
        for position, value, error in rows(segment):
            future = self._sent.pop(position)
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(exception_of(error))

    def settle_rest(self, error: BaseException) -> None:
        """Settle the futures of all calls that were sent and have no outcome."""
        sent, self._sent = self._sent, {}
        for future in sent.values():
            future.set_exception(error)

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._on_end()

    async def _has_calls(self) -> bool:
        """Wait for a call; False when this batch is to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_S):
                while not (self._queue or self._queue.closed or self.ended):
                    await self._queue.changed()
        if not self._queue:
            self._end()
        return not self.ended

    def _take(self, builder: PayloadBuilder, limit: int) -> None:
        first = builder.first + len(builder)
        for position, (future, template, args, kwargs) in enumerate(self._queue.take(limit), first):
            builder.add_call(template, args, kwargs)
            self._sent[position] = future
        self._count = builder.first + len(builder)
