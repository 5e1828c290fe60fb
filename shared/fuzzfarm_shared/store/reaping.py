"""Looking after batches: what must be done so that each of them ends, whatever was lost on the way."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from fuzzfarm_shared.keys import AttemptId, Lane, Part, random_bits
from fuzzfarm_shared.ranges import RangeSet
from fuzzfarm_shared.schedule import StopReason
from fuzzfarm_shared.segments import decode_segment
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store.readings import ENTRIES_PER_READ, outcome_context
from fuzzfarm_shared.store.server import Server


@dataclass(frozen=True, slots=True)
class Stopped:
    """The batch was told to stop: these attempts wait, and whoever asked settles them."""

    reason: StopReason
    waiting: tuple[AttemptId, ...]


@dataclass(frozen=True, slots=True)
class LostPayload:
    """A payload without any chunk.

    Attributes:
        number: its id in the batch.
        units_left: how many of its units have no outcome.
        lane: what its chunks need of a worker.
    """

    number: int
    units_left: int
    lane: Lane


@dataclass(frozen=True, slots=True)
class LostChunks:
    """Payloads whose chunks have vanished."""

    payloads: tuple[LostPayload, ...]


@dataclass(frozen=True, slots=True)
class LostOperations:
    """So many operations have no outcome, and neither a chunk nor a payload."""

    pending: int


@dataclass(frozen=True, slots=True)
class Queued:
    """All is well, after so many chunks without a job or without a lease were queued again."""

    chunks: int


class ReapingStore:
    """The way into the store of whoever looks after batches."""

    def __init__(self, server: Server, signer: Signer) -> None:
        self._server = server
        self._signer = signer
        self._keys = server.settings.keys

    async def look_after(self, batch: str) -> Stopped | LostChunks | LostOperations | Queued:
        """Queue again what can be, and return what else must be done for the batch."""
        found, *rest = await self._server.run("reap", batch, random_bits())
        if found == b"stop":
            reason, *waiting = rest
            return Stopped(StopReason(reason.decode()), tuple(AttemptId.parse(raw.decode()) for raw in waiting))
        if found == b"lost":
            rows = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
            return LostChunks(tuple(LostPayload(number, left, Lane(lane.decode())) for number, left, lane in rows))
        return LostOperations(rest[0]) if found == b"gone" else Queued(rest[0])

    async def envelope(self, batch: str, payload: int) -> bytes | None:
        """Return a signed payload, or None."""
        raw: bytes | None = await self._server.call("HGET", self._keys.batch(batch, Part.PAYLOADS), payload)
        return raw

    async def recorded(self, batch: str, submit_id: str) -> dict[int, RangeSet]:
        """Return the places of operations with a recorded outcome, by the position of their payload's first one."""
        name, context = self._keys.batch(batch, Part.OUTCOMES), outcome_context(batch, submit_id)
        found: dict[int, RangeSet] = defaultdict(RangeSet)
        after = "-"
        while entries := await self._server.call("XRANGE", name, after, "+", "COUNT", ENTRIES_PER_READ):
            for _, fields in entries:
                if b"d" in fields:
                    segment = decode_segment(self._signer.open(fields[b"d"], context))
                    found[segment.first].add_all(segment.indexes)
            after = f"({entries[-1][0].decode()}"
        return found

    async def restore(self, batch: str, payload: int, lane: Lane, units: int, done: RangeSet) -> bool:
        """Queue the payload again, but for what is `done`; False when it has a chunk by now, or has ended."""
        left = units - len(done)
        return bool(
            await self._server.run("restore", batch, payload, units, lane.value, done.encode(), left, random_bits())
        )

    async def abandon(self, batch: str, pending: int, envelope: bytes) -> bool:
        """End the batch with an error for each of its `pending` operations; False when their number has changed."""
        return bool(await self._server.run("abandon", batch, pending, envelope))
