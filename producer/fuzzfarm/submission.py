"""Submitting: operations are read lazily, cut into payloads, and sent one after the other.

Memory is bounded by one payload, however many operations come. The first payloads are small, so that workers start at
once, and grow from there. A submit that finds the batch on the server compares what is there, payload by payload, and
goes on behind it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterable, Iterable, Iterator, Sized
from typing import Any

from fuzzfarm.feed import Feed, Operations, PayloadFeed, checked_item
from fuzzfarm_shared.connection import backoff_s
from fuzzfarm_shared.errors import (
    BatchConflictError,
    DuplicateKeyError,
    InvalidOperationError,
    PayloadTooLargeError,
    QueueFullError,
)
from fuzzfarm_shared.keys import Lane
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.operations import CallGroup, FuzzOperation
from fuzzfarm_shared.payloads import PayloadBuilder
from fuzzfarm_shared.settings import ProducerSettings
from fuzzfarm_shared.store import Accepted, EncodedPayload, SubmissionStore
from fuzzfarm_shared.store.readings import operations_context
from fuzzfarm_shared.store.submissions import key_digest

FIRST_PAYLOAD = 64
"""Operations in the first payload of input of unknown length; each further payload is twice as long."""

PAYLOADS_PER_BATCH = 16
"""Input of known length is cut into at least so many payloads (eight for each of two workers), if it is long enough."""

PAYLOAD_BYTES = 1_000_000
"""A longer payload is halved: it would keep the server busy for over a millisecond."""

ENDLESS = 1 << 52
"""Units of a fuzz operation that runs for a time: the largest whole numbers that Lua keeps exactly are below 2**53."""

LONGEST_LIFE_S = 400 * 86_400
"""After this a payload without a deadline is refused, wherever it was kept: more than any batch runs."""

log = get_logger(__name__)


class Submission:
    """One `submit` call."""

    def __init__(
        self,
        store: SubmissionStore,
        settings: ProducerSettings,
        batch: str,
        operations: Operations | PayloadFeed,
        *,
        wait: bool,
    ) -> None:
        self._store = store
        self._settings = settings
        self._batch = batch
        self._feed = operations if isinstance(operations, PayloadFeed) else Feed(operations)
        self._sequence = operations if isinstance(operations, list | tuple) else None
        self._keys = KeyCheck(on_server=not isinstance(operations, list | tuple))
        self._wait = wait
        self._sizes = _payload_sizes(operations, settings.chunk_operations)
        self._submit_id = secrets.token_hex(8)
        self._index = 0
        self._joined = False
        self._position = 0
        self.begun = asyncio.Event()
        """Set when the batch is on the server, so that it can be read."""
        self.cancelled = False
        """Whether the batch was told to stop before everything was submitted."""

    async def run(self, *, may_exist: bool) -> None:
        """Send everything and seal the batch.

        Args:
            may_exist: whether the server has to be asked for an earlier submit of this batch.
        """
        if self._sequence is not None:
            self._keys.check_all(self._sequence)
        if may_exist and not await self._join():
            return
        async with self._feed:
            while not await self._send_next():
                pass

    @property
    def started(self) -> bool:
        """Whether the server has accepted anything."""
        return self._index > 0

    @property
    def created(self) -> bool:
        """Whether what the server has accepted of this batch came from this submit alone."""
        return self.started and not self._joined

    async def _join(self) -> bool:
        """Compare with what the server has; False when the batch was told to stop."""
        accepted = await self._store.open(self._batch)
        self._submit_id = accepted.submit_id
        self._joined = accepted.payloads > 0
        for operations, boundary in await self._store.boundaries(self._batch) if accepted.payloads else []:
            builder, _ = await self._read(operations, patient=True)
            if len(builder) != operations or self._encoded(builder).boundary != boundary:
                raise self._conflict(self._position - len(builder))
            self._index += 1
        if self._joined:
            self.begun.set()
        return accepted.stop_reason is None

    async def _send_next(self) -> bool:
        """Send one payload; True when the batch is complete."""
        builder, exhausted = await self._read(next(self._sizes))
        if not len(builder):
            await self._seal()
            return True
        parts = list(self._fitting(builder))
        for place, (part, payload) in enumerate(parts):
            last = exhausted and place == len(parts) - 1
            accepted = await self._append(part, payload, seal=last)
            if accepted.stop_reason is not None:
                self.cancelled = True
                reason = accepted.stop_reason.value
                log.warning("the batch was told to stop while it was being submitted", batch=self._batch, reason=reason)
                return True
        return exhausted

    async def _read(self, limit: int, *, patient: bool = False) -> tuple[PayloadBuilder, bool]:
        builder = PayloadBuilder(self._position)
        exhausted = await self._feed.fill(builder, limit, patient=patient)
        self._position += len(builder)
        self._keys.check(builder)
        return builder, exhausted

    async def _append(self, part: PayloadBuilder, payload: EncodedPayload, *, seal: bool) -> Accepted:
        context = operations_context(self._batch, self._submit_id, self._index)
        deadline_s = -(-await self._store.deadline_ms() // 1000)  # in whole seconds, and not before its time
        not_after = deadline_s or int(time.time()) + LONGEST_LIFE_S
        envelope = self._settings.signer.seal(payload.body, context, not_after)
        limit = self._settings.queue_limit
        tries = 0
        while True:
            accepted = await self._store.append(
                self._batch, self._submit_id, self._index, payload, envelope, seal=seal, queue_limit=limit
            )
            if accepted.status != "wait":
                break
            await self._wait_for_room(accepted, tries)
            tries += 1
        if accepted.duplicate is not None:
            raise DuplicateKeyError(self._keys.named(part)[accepted.duplicate])
        if accepted.status == "conflict" or accepted.submit_id != self._submit_id:
            raise self._conflict(part.first)
        self._index += 1
        self.begun.set()
        return accepted

    async def _wait_for_room(self, accepted: Accepted, tries: int) -> None:
        limit = self._settings.queue_limit
        if not self._wait:
            raise QueueFullError(accepted.depth, limit)
        if tries == 0:
            log.warning("the queue is full, waiting for workers", batch=self._batch, chunks=accepted.depth, limit=limit)
        await asyncio.sleep(backoff_s(tries))

    async def _seal(self) -> None:
        if not self.started:  # an empty batch: no payload has created it
            self._submit_id = (await self._store.open(self._batch)).submit_id
        accepted = await self._store.seal(self._batch, self._submit_id, self._index)
        if accepted.status == "conflict":
            raise self._conflict(self._position)
        self.cancelled = accepted.stop_reason is not None
        self.begun.set()

    def _fitting(self, builder: PayloadBuilder) -> Iterator[tuple[PayloadBuilder, EncodedPayload]]:
        payload = self._encoded(builder)
        size_bytes = len(payload.body)
        if len(builder) > 1 and size_bytes > min(PAYLOAD_BYTES, self._settings.max_payload_bytes):
            for half in builder.halves():
                yield from self._fitting(half)
            return
        if size_bytes > self._settings.max_payload_bytes:
            raise PayloadTooLargeError(builder.resolved_keys()[0], size_bytes, self._settings.max_payload_bytes)
        yield builder, payload

    def _encoded(self, builder: PayloadBuilder) -> EncodedPayload:
        fuzz = builder.fuzz_operation
        return EncodedPayload(
            body=builder.encode(),
            operations=len(builder),
            units=len(builder) if fuzz is None else _units(fuzz),
            lane=Lane.SLOTS if fuzz is None else Lane.FUZZ,
            key_digests=self._keys.digests(builder),
        )

    def _conflict(self, position: int) -> BatchConflictError:
        return BatchConflictError(self._batch, f"it differs from operation {position:,} on")


class KeyCheck:
    """Finds keys that come twice: all at once for a sequence, payload by payload and on the server for lazy input."""

    def __init__(self, *, on_server: bool) -> None:
        self._on_server = on_server
        self._numeric: str | None = None
        self._unnamed = False

    def check_all(self, operations: Iterable[Any]) -> None:
        """Check a whole sequence before anything is sent.

        Raises:
            DuplicateKeyError: for a key that comes twice.
            InvalidOperationError: as `check`, and for what is no operation.
        """
        keys = [None if isinstance(checked_item(item), CallGroup) else item.key for item in operations]
        _check_unique(keys)
        self._check_numbers(keys, unnamed=None in keys)

    def check(self, builder: PayloadBuilder) -> None:
        """Check the keys of one payload of lazy input.

        Raises:
            DuplicateKeyError: for a key that comes twice in it.
            InvalidOperationError: for a numeric key beside operations whose key is their position.
        """
        if self._on_server:
            if builder.named:
                _check_unique(builder.keys)
            self._check_numbers(builder.keys if builder.named else (), unnamed=builder.named < len(builder))

    def _check_numbers(self, keys: Iterable[str | None], *, unnamed: bool) -> None:
        self._unnamed |= unnamed
        if self._numeric is None:
            self._numeric = next((key for key in keys if key is not None and key.isdecimal()), None)
        if self._unnamed and self._numeric is not None:
            raise InvalidOperationError(
                f"the key {self._numeric!r} could also be the position of an operation without a key: "
                "give every operation a key, or none a number"
            )

    def named(self, builder: PayloadBuilder) -> list[str]:
        """Return the keys that were given, in order."""
        return [key for key in builder.keys if key is not None]

    def digests(self, builder: PayloadBuilder) -> list[bytes]:
        """Return what the server compares with the keys of other payloads."""
        return [key_digest(key) for key in self.named(builder)] if self._on_server else []


def _check_unique(keys: Iterable[str | None]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key is None:
            continue
        if key in seen:
            raise DuplicateKeyError(key)
        seen.add(key)


def _units(operation: FuzzOperation) -> int:
    return ENDLESS if operation.examples is None else operation.examples


def _payload_sizes(operations: Operations | PayloadFeed, most: int) -> Iterator[int]:
    """Yield how many operations each payload may hold."""
    items = operations.items if isinstance(operations, CallGroup) else operations
    if isinstance(items, Sized) and not isinstance(items, AsyncIterable):
        size = min(most, max(FIRST_PAYLOAD, -(-len(items) // PAYLOADS_PER_BATCH)))
        while True:
            yield size
    size = min(most, FIRST_PAYLOAD)
    while True:
        yield size
        size = min(most, size * 2)
