"""Chunks that merge: the results of all shards of a fuzz operation become its one outcome."""

from __future__ import annotations

from fuzzfarm_shared.outcomes import ErrorKind
from fuzzfarm_shared.payloads import Payload
from fuzzfarm_worker.chunks.attempt import Attempt
from fuzzfarm_worker.chunks.suspicion import MOST_DEATHS

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
        if self._attempt.claim.deaths >= MOST_DEATHS:
            await self._attempt.settle(self._payload, ErrorKind.WORKER_LOST, MANY_DEATHS)
        else:
            await self._attempt.merge(self._payload)

    async def leave(self) -> None:
        """A merge is one commit: there is nothing to leave."""
