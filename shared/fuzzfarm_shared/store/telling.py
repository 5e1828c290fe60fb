"""Progress on the server: told by workers while somebody looks, and gone soon after."""

from __future__ import annotations

import asyncio

from fuzzfarm_shared.errors import CodecError, FarmFullError, FarmUnreachableError, SignatureError
from fuzzfarm_shared.keys import AttemptId
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.progress import (
    MESSAGE_BYTES,
    MOST_CHUNKS,
    WATCHED_S,
    Progress,
    decode_progress,
    encode_progress,
    progress_context,
)
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store.server import Server

LOOK_WITHIN_S = 1.0
"""Longest wait for progress; a script takes well under a millisecond."""

log = get_logger(__name__)


class TellingStore:
    """Where workers tell how far jobs are, and readers look."""

    def __init__(self, server: Server, signer: Signer) -> None:
        self._server = server
        self._signer = signer
        self._keys = server.settings.keys

    async def tell(self, attempt: AttemptId, submit_id: str, told: list[Progress]) -> None:
        """Replace what is known of the jobs of a chunk; its next commit forgets them.

        Raises:
            FarmFullError: when the server has no room for it.
            FarmUnreachableError: when the server stays away.
        """
        context = progress_context(attempt.batch, submit_id, attempt.chunk)
        envelope = self._signer.seal(encode_progress(told), context)
        life_ms = int(WATCHED_S * 1000)
        await self._server.run("tell", attempt.batch, attempt.chunk, attempt.token, life_ms, envelope, MOST_CHUNKS)

    async def look(self, batch: str, submit_id: str) -> dict[int, list[Progress]]:
        """Return what is told, by chunk, and have workers go on telling for `WATCHED_S`.

        What does not carry our signature is left out, and logged. A server that is full, slow or away tells nothing:
        it must not hold up outcomes.
        """
        told: dict[int, list[Progress]] = {}
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                reply = await self._server.run("look", batch, int(WATCHED_S * 1000))
        except (FarmFullError, FarmUnreachableError, TimeoutError) as exc:
            log.debug("progress was not read", batch=batch, reason=str(exc))
            return told
        for chunk, envelope in zip(map(int, reply[::2]), reply[1::2], strict=True):
            try:
                told[chunk] = self._opened(envelope, progress_context(batch, submit_id, chunk))
            except (CodecError, SignatureError) as exc:
                log.warning("progress of a chunk was refused", batch=batch, chunk=chunk, reason=str(exc))
        return told

    def _opened(self, envelope: bytes, context: tuple[str | int, ...]) -> list[Progress]:
        if len(envelope) > MESSAGE_BYTES:
            raise CodecError(f"it takes {len(envelope):,} bytes, and no worker writes more than {MESSAGE_BYTES:,}")
        return decode_progress(self._signer.open(envelope, context))
