"""Reading: what the shards of fuzz operations have recorded while those still run."""

from __future__ import annotations

from collections.abc import Mapping

from fuzzfarm_shared.keys import Part
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import FuzzResult
from fuzzfarm_shared.payloads import decode_payload
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store.readings import operations_context, partial_context
from fuzzfarm_shared.store.server import Server
from fuzzfarm_shared.values import unpack


class FuzzReadings:
    """What anyone may ask of the fuzz operations of one batch.

    Args:
        server: where the batch is.
        signer: checks what was recorded.
        batch: its key.
        submit_id: what its signatures are bound to.
    """

    def __init__(self, server: Server, signer: Signer, batch: str, submit_id: str) -> None:
        self._server = server
        self._signer = signer
        self._batch = batch
        self._submit_id = submit_id
        self._keys = server.settings.keys

    async def last_place(self) -> int:
        """Return the last payload of which a shard has recorded something; -1 without one."""
        raw = await self._server.call("HGET", self._keys.batch(self._batch, Part.META), "partials")
        return -1 if raw is None else int(raw)

    async def results(self, read: Mapping[int, int]) -> dict[int, list[FuzzResult]]:
        """Return what shards have recorded since, by payload; nothing for those without news.

        Args:
            read: the payloads, each with the number of results to leave out, those of earlier calls.
        """
        prefix = self._keys.batch(self._batch, Part.PARTIALS)
        replies = await self._server.read([("LRANGE", f"{prefix}{place}", start, -1) for place, start in read.items()])
        return {place: self._opened(place, raw) for place, raw in zip(read, replies, strict=True) if raw}

    def _opened(self, place: int, envelopes: list[bytes]) -> list[FuzzResult]:
        context = partial_context(self._batch, self._submit_id, place)
        results = [unpack(self._signer.open(envelope, context)) for envelope in envelopes]
        # A shard that failed counts, so that the next reading starts behind it.
        return [result if isinstance(result, FuzzResult) else merge([]) for result in results]

    async def operation_key(self, place: int) -> str | None:
        """Return the key of a fuzz operation by its payload; None when it has ended."""
        raw = await self._server.call("HGET", self._keys.batch(self._batch, Part.PAYLOADS), place)
        if raw is None:
            return None
        context = operations_context(self._batch, self._submit_id, place)
        return decode_payload(self._signer.open(raw, context)).keys_of([0])[0]
