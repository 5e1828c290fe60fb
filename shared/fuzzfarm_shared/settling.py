"""Settling a chunk without running it: the same error for every operation that has no outcome yet.

Workers do so for cancelled, rejected and given-up chunks; `Batch.cancel` does so for chunks that no worker holds.
"""

from __future__ import annotations

import time

from fuzzfarm_shared.errors import CodecError, SignatureError
from fuzzfarm_shared.keys import Lane
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_shared.payloads import Payload, decode_payload
from fuzzfarm_shared.segments import Segment, encode_segment
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store.attempts import Claim, Commit
from fuzzfarm_shared.store.readings import outcome_context, partial_context
from fuzzfarm_shared.values import pack


def operations_context(batch: str, submit_id: str, payload: int) -> tuple[str | int, ...]:
    """Return what the signature of a payload is bound to."""
    return ("operations", batch, submit_id, payload)


def open_payload(claim: Claim, signer: Signer) -> Payload:
    """Return the operations of a claimed chunk.

    Raises:
        CodecError: for a payload that is missing, too large, or cannot be decoded.
        SignatureError: for one that is not signed as this side requires.
    """
    if claim.envelope is None:
        raise CodecError("the server has lost the operations of this chunk (evicted?): submit the batch again")
    signer.check_size(claim.envelope)
    context = operations_context(claim.id.batch, claim.submit_id, claim.payload)
    return decode_payload(signer.open(claim.envelope, context, claim.now_s))


def settled(claim: Claim, payload: Payload | None, error: OperationError, signer: Signer) -> Commit:
    """Return the final commit that records `error` for every unit of the chunk without an outcome.

    Args:
        claim: the chunk.
        payload: its operations; None when they cannot be read, which gives them placeholder keys.
        error: what to record.
        signer: signs the outcomes.
    """
    units = claim.stop - claim.start - len(claim.done)
    number = claim.commits + 1
    if claim.lane is Lane.FUZZ:
        context = partial_context(claim.id.batch, claim.submit_id, claim.payload)
        return Commit(number, signer.seal(pack(error), context), units=units, final=True, partial=True)
    indexes = [0] if claim.merge else list(claim.done.missing(claim.start, claim.stop))
    if not indexes:
        return Commit(number, b"", units=units, final=True)
    keys = _keys(claim, payload, indexes)
    return Commit(
        number,
        signer.seal(_segment(claim, payload, indexes, keys, error), outcome_context(claim.id.batch, claim.submit_id)),
        failed=0 if error.kind is ErrorKind.CANCELLED else len(indexes),
        cancelled=len(indexes) if error.kind is ErrorKind.CANCELLED else 0,
        units=units,
        final=True,
    )


def readable_payload(claim: Claim, signer: Signer) -> Payload | None:
    """Return the operations of a chunk, or None when they cannot be opened."""
    try:
        return open_payload(claim, signer)
    except (CodecError, SignatureError):
        return None


def _keys(claim: Claim, payload: Payload | None, indexes: list[int]) -> list[str] | None:
    if payload is None:
        return [f"unreadable-{claim.payload}-{index}" for index in indexes]
    return payload.keys_of(indexes) if payload.keys is not None else None


def _segment(
    claim: Claim, payload: Payload | None, indexes: list[int], keys: list[str] | None, error: OperationError
) -> bytes:
    count = len(indexes)
    return encode_segment(
        Segment(
            first=0 if payload is None else payload.first,
            keys=keys,
            indexes=indexes,
            values=[None] * count,
            errors=dict.fromkeys(range(count), error),
            attempt=claim.attempt,
            worker=error.worker,
            epoch=time.time(),
            started=[0.0] * count,
            durations=[0.0] * count,
        )
    )
