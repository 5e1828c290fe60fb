"""Reading: the state of a batch, and its outcomes in the order of their commits."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from fuzzfarm_shared.connection import longest_block_s
from fuzzfarm_shared.errors import BatchNotFoundError
from fuzzfarm_shared.keys import Part
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import BatchState, BatchStatus, FuzzResult
from fuzzfarm_shared.schedule import Priority, StopReason
from fuzzfarm_shared.segments import Segment, decode_segment
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store.server import Server
from fuzzfarm_shared.values import unpack

ENTRIES_PER_READ = 16
"""Segments fetched at once: at most 50k outcomes each, so this bounds what a reader holds."""

_COUNTERS = (
    "total",
    "succeeded",
    "failed",
    "cancelled",
    "sealed",
    "examples",
    "late",
    "created",
    "deadline",
    "finished",
)
_WORDS = ("stop", "priority")

Entry = tuple[str, Segment]
"""A segment and the id of its entry in the stream."""

_CURSOR = re.compile(r"(?P<entry>[0-9]{1,20}(-[0-9]{1,20})?)(\+(?P<taken>[0-9]{1,9}))?")
_LARGEST_ID = (1 << 64) - 1
"""Of either part of an entry's id: https://redis.io/docs/latest/develop/data-types/streams/#entry-ids."""


@dataclass(frozen=True, slots=True)
class OutcomeCursor:
    """A place in the outcomes of a batch; as text it can be kept and given back later.

    Attributes:
        entry: id of the last segment that was read whole.
        taken: outcomes already taken from the segment after it.
    """

    entry: str = "0"
    taken: int = 0

    def __str__(self) -> str:
        return f"{self.entry}+{self.taken}"

    @classmethod
    def parse(cls, text: str) -> OutcomeCursor:
        """Return the cursor written as `text`; ValueError for any other text."""
        match = _CURSOR.fullmatch(text)
        if match is None or any(int(part) > _LARGEST_ID for part in match["entry"].split("-")):
            raise ValueError(f"{text!r} is no cursor: give back what a stream's `cursor` said")
        return cls(match["entry"], int(match["taken"] or 0))


def operations_context(batch: str, submit_id: str, payload: int) -> tuple[str | int, ...]:
    """Return what the signature of a payload is bound to."""
    return ("operations", batch, submit_id, payload)


def partial_context(batch: str, submit_id: str, payload: int) -> tuple[str | int, ...]:
    """Return what the signature of a shard's result is bound to."""
    return ("partial", batch, submit_id, payload)


def outcome_context(batch: str, submit_id: str) -> tuple[str, ...]:
    """Return what the signature of outcomes is bound to."""
    return ("outcomes", batch, submit_id)


class ReadingStore:
    """What anyone may ask of the store."""

    def __init__(self, server: Server, signer: Signer) -> None:
        self._server = server
        self._signer = signer
        self._keys = server.settings.keys

    async def status(self, batch: str) -> BatchStatus:
        """Return one consistent reading of the batch's counters.

        Raises:
            BatchNotFoundError: when there is no such batch, or it has expired.
        """
        name = self._keys.batch(batch, Part.META)
        raw = await self._server.call("HMGET", name, *_COUNTERS, *_WORDS)
        if raw[0] is None:
            raise BatchNotFoundError(batch)
        numbers = [None if value is None else int(value) for value in raw[: len(_COUNTERS)]]
        return _status(batch, numbers, *(raw[len(_COUNTERS) :]))

    async def batches(self, limit: int) -> list[BatchStatus]:
        """Return the newest batches, newest first; expired ones are left out."""
        found: list[BatchStatus] = []
        for raw in await self._server.call("ZREVRANGE", self._keys.batches, 0, limit - 1):
            try:
                found.append(await self.status(raw.decode()))
            except BatchNotFoundError:
                await self._server.call("ZREM", self._keys.batches, raw)
        return found

    async def segments(self, batch: str, after: str) -> AsyncGenerator[tuple[str, Segment], None]:
        """Yield (entry id, segment) from behind `after` until the batch has ended, waiting for more as needed.

        Raises:
            BatchNotFoundError: when there is no such batch, or it expires while we wait.
        """
        async for read in self.reads(batch, after, longest_block_s(self._server.settings)):
            for segment in read:
                yield segment

    async def reads(self, batch: str, after: str, block_s: float) -> AsyncGenerator[Iterator[Entry], None]:
        """Yield what `segments` does by read, and nothing whenever nothing came for `block_s`; raises as it."""
        context = outcome_context(batch, await self.submit_id(batch))
        name = self._keys.batch(batch, Part.OUTCOMES)
        while True:
            reply = await self._server.call(
                "XREAD", "COUNT", ENTRIES_PER_READ, "BLOCK", int(block_s * 1000), "STREAMS", name, after
            )
            if not reply:
                await self.submit_id(batch)
                yield iter(())
                continue
            entries = reply[0][1]
            ended = b"end" in entries[-1][1]
            after = entries[-1][0].decode()
            yield (  # decoded one by one: a reader holds the columns of one segment
                (entry.decode(), decode_segment(self._signer.open(fields[b"d"], context)))
                for entry, fields in (entries[:-1] if ended else entries)
            )
            if ended:
                return

    async def shard_results(self, batch: str, payload: int, start: int) -> list[FuzzResult]:
        """Return the results of shards of a running fuzz operation, from the `start`-th recorded one on.

        Raises:
            BatchNotFoundError: when there is no such batch, or it has expired.
        """
        context = partial_context(batch, await self.submit_id(batch), payload)
        name = f"{self._keys.batch(batch, Part.PARTIALS)}{payload}"
        envelopes = await self._server.call("LRANGE", name, start, -1)
        results = [unpack(self._signer.open(envelope, context)) for envelope in envelopes]
        # A shard that failed counts, so that the next reading starts behind it.
        return [result if isinstance(result, FuzzResult) else merge([]) for result in results]

    async def some_payload(self, batch: str) -> tuple[int, bytes] | None:
        """Return number and envelope of some payload that has operations without an outcome; None without one."""
        cursor = 0
        while True:
            cursor, fields = await self._server.call("HSCAN", self._keys.batch(batch, Part.PAYLOADS), cursor)
            for name, value in fields.items():
                if name.isdigit():
                    return int(name), value
            if not int(cursor):
                return None

    async def last_entry(self, batch: str) -> str:
        """Return the id of the newest segment; "0" without one."""
        newest = await self._server.call("XREVRANGE", self._keys.batch(batch, Part.OUTCOMES), "+", "-", "COUNT", 1)
        return str(newest[0][0].decode()) if newest else "0"

    async def wait_for_change(self, batch: str, after: str, timeout_s: float) -> None:
        """Return when there is a segment behind entry `after`, or after `timeout_s`."""
        name = self._keys.batch(batch, Part.OUTCOMES)
        block_ms = max(1, int(min(timeout_s, longest_block_s(self._server.settings)) * 1000))
        await self._server.call("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", name, after)

    async def submit_id(self, batch: str) -> str:
        """Return what every signature of the batch is bound to; raises BatchNotFoundError without such a batch."""
        raw = await self._server.call("HGET", self._keys.batch(batch, Part.META), "submit")
        if raw is None:
            raise BatchNotFoundError(batch)
        return str(raw.decode())


def _status(batch: str, raw: list[int | None], stop: bytes | None, priority: bytes) -> BatchStatus:
    finished = raw[9]
    total, succeeded, failed, cancelled, sealed, examples, late, created, deadline = (value or 0 for value in raw[:9])
    state = BatchState.RUNNING if sealed else BatchState.SUBMITTING
    if finished is not None:
        state = BatchState.DONE
    if stop == StopReason.CANCELLED.value.encode():
        state = BatchState.CANCELLED
    return BatchStatus(
        key=batch,
        state=state,
        total=total,
        succeeded=succeeded,
        failed=failed,
        cancelled=cancelled,
        pending=total - succeeded - failed - cancelled,
        done=finished is not None,
        sealed=bool(sealed),
        examples_done=examples,
        late_duplicates=late,
        created_at=created / 1000,
        finished_at=None if finished is None else finished / 1000,
        deadline_at=deadline / 1000 if deadline else None,
        priority=Priority(priority.decode()),
    )
