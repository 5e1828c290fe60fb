"""The batch store driven by hand: what a producer and workers would do, one step at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from fuzzfarm_shared.connection import connect
from fuzzfarm_shared.keys import AttemptId, ChunkKind, Lane, Part
from fuzzfarm_shared.operations import AnyOperation, CallOperation, FuzzOperation
from fuzzfarm_shared.outcomes import BatchStatus, ErrorKind, OperationError
from fuzzfarm_shared.payloads import PayloadBuilder
from fuzzfarm_shared.ranges import RangeSet
from fuzzfarm_shared.segments import Segment, decode_segment, encode_segment
from fuzzfarm_shared.settings import FarmSettings
from fuzzfarm_shared.settling import (
    cancel_order,
    open_payload,
    operations_context,
    partial_context,
    readable_payload,
    settled,
)
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store import (
    Accepted,
    AttemptStore,
    Claim,
    Commit,
    CommitReply,
    EncodedPayload,
    ReadingStore,
    Server,
    SubmissionStore,
)
from fuzzfarm_shared.store.readings import outcome_context
from fuzzfarm_shared.store.submissions import key_digest

LONG_S = 600.0
"""A lease that does not end within a test."""

SHORT_S = 0.001
"""A lease that has ended when anyone looks again."""

QUEUE_LIMIT = 1_000


async def wait_until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
    """Ask the server again and again; TimeoutError after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0)


def call_payload(first: int, count: int, keys: list[str] | None = None) -> EncodedPayload:
    names = keys or [None] * count
    return payload_of(first, [CallOperation(key=key, target="mod:f", args=[place]) for place, key in enumerate(names)])


def fuzz_payload(first: int, examples: int) -> EncodedPayload:
    return payload_of(first, [FuzzOperation(target="mod:f", examples=examples)])


def payload_of(first: int, operations: list[AnyOperation]) -> EncodedPayload:
    builder = PayloadBuilder(first)
    for operation in operations:
        builder.add(operation)
    fuzz = builder.fuzz_operation
    return EncodedPayload(
        body=builder.encode(),
        operations=len(builder),
        units=len(builder) if fuzz is None else fuzz.examples or 0,
        lane=Lane.SLOTS if fuzz is None else Lane.FUZZ,
        key_digests=[key_digest(key) for key in builder.keys if key is not None],
    )


@dataclass
class Held:
    """A claimed chunk and what its holder knows of it."""

    claim: Claim
    store: AttemptStore
    stop: int
    done: RangeSet
    number: int

    @property
    def missing(self) -> list[int]:
        return [0] if self.claim.kind is ChunkKind.MERGE else list(self.done.missing(self.claim.start, self.stop))


class StoreHarness:
    """One producer, any number of workers, and a reader, on the keys of one test."""

    def __init__(self, settings: FarmSettings, batch: str) -> None:
        self.settings = settings
        self.batch = batch
        self.client = connect(settings)
        self.server = Server(self.client, settings)
        self.submissions = SubmissionStore(self.server)
        self.readings = ReadingStore(self.server, settings.signer)
        self.signer = settings.signer
        self.submit_id = "submit-1"

    async def close(self) -> None:
        await self.client.aclose()

    def worker(self, name: str = "w1", lease_s: float = LONG_S, at_once: int = 0) -> AttemptStore:
        return AttemptStore(self.server, name, lease_s, at_once)

    async def append(
        self, index: int, payload: EncodedPayload, *, seal: bool = False, queue_limit: int = QUEUE_LIMIT
    ) -> Accepted:
        envelope = self.signer.seal(payload.body, operations_context(self.batch, self.submit_id, index))
        return await self.submissions.append(
            self.batch, self.submit_id, index, payload, envelope, seal=seal, queue_limit=queue_limit
        )

    async def waiting(self) -> list[AttemptId]:
        """Attempts of this batch in arq's queue, the oldest first."""
        ids = [AttemptId.parse(raw.decode()) for raw in await self.client.zrange(self.settings.keys.queue, 0, -1)]
        return [attempt for attempt in ids if attempt.batch == self.batch]

    async def take(self, store: AttemptStore, attempt: AttemptId | None = None) -> Held:
        """Claim a waiting chunk as a worker does, that must get it."""
        claim = await self.claim(store, attempt or (await self.waiting())[0])
        assert isinstance(claim, Claim)
        return Held(claim, store, claim.stop, claim.done, claim.commits)

    async def claim(self, store: AttemptStore, attempt: AttemptId) -> object:
        """Take an attempt off the wake lists and claim it."""
        for name in self.settings.keys.wake_lists():
            await self.client.lrem(name, 1, str(attempt))  # type: ignore[misc]
        return await store.claim(attempt)

    def commit_of(self, chunk: Held, units: Iterable[int], failed: int = 0) -> Commit:
        """Return the commit of these units, the first `failed` of them as errors."""
        listed = list(units)
        chunk.number += 1
        if chunk.claim.kind is not ChunkKind.MERGE:
            chunk.done.add_all(listed)
        final = bool(listed) if chunk.claim.kind is ChunkKind.MERGE else not chunk.missing
        done = b"" if final else chunk.done.encode()
        if chunk.claim.lane is Lane.FUZZ:
            context = partial_context(self.batch, self.submit_id, chunk.claim.payload)
            envelope = self.signer.seal(b"\xc0", context)
            return Commit(
                chunk.number, envelope, units=len(listed), examples=len(listed), done=done, final=final, partial=True
            )
        return Commit(
            chunk.number,
            self.signer.seal(
                encode_segment(segment_of(chunk, listed, failed, self.signer)),
                outcome_context(self.batch, self.submit_id),
            ),
            succeeded=len(listed) - failed,
            failed=failed,
            units=0 if chunk.claim.kind is ChunkKind.MERGE else len(listed),
            done=done,
            final=final,
        )

    async def commit(self, chunk: Held, units: Iterable[int] | None = None, failed: int = 0) -> CommitReply:
        """Record these units, or all that are missing."""
        commit = self.commit_of(chunk, chunk.missing if units is None else units, failed)
        return await chunk.store.commit(chunk.claim.id, commit)

    async def cancel(self) -> None:
        """Cancel as `Batch.cancel` does."""
        store = self.worker("canceller")
        error = OperationError(ErrorKind.CANCELLED, "", "cancelled")
        order = cancel_order(self.batch, self.submit_id, self.signer)
        for attempt in await store.cancel(self.batch, order) or []:
            claim = await self.claim(store, attempt)
            if isinstance(claim, Claim):
                payload = readable_payload(claim, self.signer)
                await store.commit(attempt, settled(claim, payload, error, self.signer))

    async def status(self) -> BatchStatus:
        return await self.readings.status(self.batch)

    async def outcome_keys(self) -> list[str]:
        """The key of every recorded outcome, in order; the one at the end of the stream is left out."""
        name = self.settings.keys.batch(self.batch, Part.OUTCOMES)
        context = outcome_context(self.batch, self.submit_id)
        bodies = [fields[b"d"] for _, fields in await self.client.xrange(name) if b"d" in fields]
        segments = [decode_segment(self.signer.open(body, context)) for body in bodies]
        return [key for segment in segments for key in segment.operation_keys()]

    async def ends(self) -> int:
        """How many entries of the stream of outcomes say that the batch has ended."""
        entries = await self.client.xrange(self.settings.keys.batch(self.batch, Part.OUTCOMES))
        return sum(b"end" in fields for _, fields in entries)

    async def names(self) -> set[str]:
        """All keys on the server that belong to this test, arq's too; without those that every farm has."""
        return await self._all_names() - {
            f"{self.settings.namespace}:{name}" for name in ("room", "taken-over", "stops")
        }

    async def _all_names(self) -> set[str]:
        found = [raw.decode() async for raw in self.client.scan_iter(f"{self.settings.namespace}:*", 1000)]
        found += [raw.decode() async for raw in self.client.scan_iter(f"arq:*{self.batch}/*", 1000)]
        return set(found)

    async def forget(self) -> None:
        """Delete all keys of this test."""
        await self.client.delete(*await self._all_names(), "")

    async def immortal(self) -> set[str]:
        """Keys of this test that would stay for ever."""
        return {name for name in await self._all_names() if await self.client.ttl(name) == -1}


def segment_of(chunk: Held, units: list[int], failed: int, signer: Signer) -> Segment:
    payload = open_payload(chunk.claim, signer)
    error = OperationError(ErrorKind.EXCEPTION, "ValueError", "no")
    count = len(units)
    return Segment(
        first=payload.first,
        keys=None if payload.keys is None else payload.keys_of(units),
        indexes=units,
        values=[None] * count,
        errors=dict.fromkeys(range(failed), error),
        attempt=chunk.claim.attempt,
        worker="w",
        epoch=time.time(),
        started=[0.0] * count,
        durations=[0.0] * count,
    )
