"""Looking after batches, so that each one ends: its deadline, and what its server has lost.

With its heartbeat a worker is told of batches, of each every half a minute and at its deadline; of one batch only one
worker is told at a time (see take_over.lua).
"""

from __future__ import annotations

import asyncio
import time

from fuzzfarm_shared.errors import FuzzfarmError
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_shared.payloads import Payload, decode_payload
from fuzzfarm_shared.ranges import RangeSet
from fuzzfarm_shared.segments import Segment, encode_segment
from fuzzfarm_shared.settling import settle_waiting
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store import AttemptStore, ReadingStore
from fuzzfarm_shared.store.readings import operations_context, outcome_context
from fuzzfarm_shared.store.reaping import LostChunks, LostOperations, LostPayload, Queued, ReapingStore, Stopped

LOST_MESSAGE = (
    "the server has lost this operation (evicted, or restored from an old backup?): submit it again, and set "
    "`maxmemory-policy noeviction` on the server"
)

log = get_logger(__name__)


class Reaper:
    """Looks after one batch after another, in a task of its own.

    Args:
        store: settles chunks that nobody holds.
        reaping: says what must be done.
        readings: says what signatures are bound to.
        signer: signs what is recorded.
        name: of this worker, in every outcome.
    """

    def __init__(
        self, store: AttemptStore, reaping: ReapingStore, readings: ReadingStore, signer: Signer, name: str
    ) -> None:
        self._store = store
        self._reaping = reaping
        self._readings = readings
        self._signer = signer
        self._name = name
        self._due: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()

    def add(self, batch: str) -> None:
        """Look after a batch soon."""
        if batch not in self._queued:
            self._queued.add(batch)
            self._due.put_nowait(batch)

    async def run(self) -> None:
        """Look after what was added, until cancelled; a batch that cannot be looked after now is told again later."""
        while True:
            batch = await self._due.get()
            try:
                await self._look_after(batch)
            except FuzzfarmError as exc:
                log.error("a batch could not be looked after", batch=batch, reason=str(exc))
            except Exception:
                log.exception("a batch could not be looked after", batch=batch)
            finally:
                self._queued.discard(batch)

    async def _look_after(self, batch: str) -> None:
        found = await self._reaping.look_after(batch)
        if isinstance(found, Stopped):
            order = await self._store.order(batch)
            await settle_waiting(self._store, found.waiting, found.reason, self._signer, self._name, order=order)
        elif isinstance(found, LostChunks):
            await self._restore(batch, found)
        elif isinstance(found, LostOperations):
            await self._abandon(batch, found.pending)
        elif isinstance(found, Queued) and found.chunks:
            log.warning("chunks whose jobs were lost are queued again", batch=batch, chunks=found.chunks)

    async def _restore(self, batch: str, lost: LostChunks) -> None:
        submit_id = await self._readings.submit_id(batch)
        recorded = await self._reaping.recorded(batch, submit_id)
        for found in lost.payloads:
            payload = await self._payload(batch, submit_id, found.number)
            units, done = _extent(payload, found, recorded)
            if await self._reaping.restore(batch, found.number, found.lane, units, done):
                log.warning("a payload whose chunks were lost is queued again", batch=batch, payload=found.number)

    async def _payload(self, batch: str, submit_id: str, number: int) -> Payload | None:
        """Return the payload, or None: then workers refuse its chunk, and say why."""
        envelope = await self._reaping.envelope(batch, number)
        try:
            context = operations_context(batch, submit_id, number)
            return None if envelope is None else decode_payload(self._signer.open(envelope, context))
        except FuzzfarmError as exc:
            log.warning("a payload that was lost cannot be read", batch=batch, payload=number, reason=str(exc))
            return None

    async def _abandon(self, batch: str, pending: int) -> None:
        submit_id = await self._readings.submit_id(batch)
        error = OperationError(ErrorKind.REJECTED, "", LOST_MESSAGE, worker=self._name)
        segment = Segment(
            first=0,
            keys=[f"lost-{number}" for number in range(pending)],
            indexes=range(pending),
            values=[None] * pending,
            errors=dict.fromkeys(range(pending), error),
            attempt=1,
            worker=self._name,
            epoch=time.time(),
            started=[0.0] * pending,
            durations=[0.0] * pending,
        )
        envelope = self._signer.seal(encode_segment(segment), outcome_context(batch, submit_id))
        if await self._reaping.abandon(batch, pending, envelope):
            log.error("operations were lost with their server's memory", batch=batch, operations=pending)


def _extent(payload: Payload | None, lost: LostPayload, recorded: dict[int, RangeSet]) -> tuple[int, RangeSet]:
    """Return units, and units done, of a lost payload; what shards have found is found again."""
    if payload is None:
        return lost.units_left, RangeSet()
    spec = payload.specs[0]
    if isinstance(spec, FuzzOperation):
        return spec.examples or lost.units_left, RangeSet()
    return len(payload), recorded.get(payload.first, RangeSet())
