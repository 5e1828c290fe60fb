"""Chunks that merge: the results of all shards of a fuzz operation become its one outcome."""

from __future__ import annotations

import time

from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_shared.payloads import Payload
from fuzzfarm_shared.segments import Segment, encode_segment
from fuzzfarm_shared.store.readings import outcome_context, partial_context
from fuzzfarm_shared.values import unpack
from fuzzfarm_worker.chunks.attempt import MOST_DEATHS, Attempt

MANY_DEATHS = (
    f"{MOST_DEATHS} attempts at a part of this operation ended with their worker, or failed in it: it is given up"
)
"""What the error of such an operation says."""


class MergeWork:
    """Makes one outcome of the results of all shards; see `Work`."""

    def __init__(self, attempt: Attempt, payload: Payload) -> None:
        self._attempt = attempt
        self._payload = payload

    async def run(self) -> None:
        """Record the operation's outcome."""
        attempt, claim = self._attempt, self._attempt.claim
        if claim.deaths >= MOST_DEATHS:
            await attempt.settle(self._payload, ErrorKind.WORKER_LOST, MANY_DEATHS)
            return
        context = partial_context(claim.id.batch, claim.submit_id, claim.payload)
        parts = [unpack(attempt.station.signer.open(envelope, context)) for envelope in claim.enclosed]
        error = next((part for part in parts if isinstance(part, OperationError)), None)
        if error is not None and claim.stop_reason is not None:
            await attempt.settle(self._payload, error.kind, error.message)
            return
        value = None if error is not None else merge(parts)
        duration_s = claim.now_s - claim.first_claim_s
        body = encode_segment(
            Segment(
                first=self._payload.first,
                keys=None if self._payload.keys is None else self._payload.keys,
                indexes=range(1),
                values=[value],
                errors={} if error is None else {0: error},
                attempt=claim.attempt,
                worker=attempt.station.name,
                epoch=time.time() - duration_s,
                started=[0.0],
                durations=[duration_s],
            )
        )
        envelope = attempt.station.signer.seal(body, outcome_context(claim.id.batch, claim.submit_id))
        await attempt.commit(envelope, succeeded=int(error is None), failed=int(error is not None))

    async def leave(self) -> None:
        """A merge is one commit: there is nothing to leave."""
