"""Settling a chunk without running it: the same error for every operation that has no outcome yet.

Workers do so for cancelled, rejected and given-up chunks; whoever stops a batch does so for chunks that nobody holds,
and merges what the shards of a fuzz operation have found.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from fuzzfarm_shared.errors import CodecError, ExpiredError, SignatureError
from fuzzfarm_shared.keys import AttemptId, ChunkKind, Lane
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import ErrorKind, OperationError, clipped
from fuzzfarm_shared.payloads import Payload, decode_payload
from fuzzfarm_shared.schedule import StopReason
from fuzzfarm_shared.segments import Segment, encode_segment
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store.attempts import AttemptStore, Claim, Commit
from fuzzfarm_shared.store.readings import operations_context, outcome_context, partial_context
from fuzzfarm_shared.values import pack, unpack

CLOCK_MARGIN_S = 1.0
"""How far an idea of the server's clock may be behind; also what an expiry in whole seconds is rounded up by."""

MOST_ERROR_CHARS = 4_000_000
"""Of the messages of a chunk that is settled, all together: each of its operations gets the same one."""


def cancel_context(batch: str, submit_id: str) -> tuple[str, ...]:
    """Return what the signature of an order to cancel is bound to."""
    return ("cancel", batch, submit_id)


def cancel_order(batch: str, submit_id: str, signer: Signer) -> bytes:
    """Return the order to cancel a batch."""
    return signer.seal(b"", cancel_context(batch, submit_id))


def is_ordered(claim: Claim, reason: StopReason, order: bytes, signer: Signer, now_s: float) -> bool:
    """Whether the batch of a chunk was told to stop by somebody who may: who can write to the server alone may not.

    Args:
        claim: the chunk.
        reason: what the server says.
        order: the order to cancel, as the server has it.
        signer: knows the keys that this side accepts.
        now_s: server time.
    """
    try:
        if reason is StopReason.CANCELLED:
            signer.open(order, cancel_context(claim.id.batch, claim.submit_id))
            return True
        open_payload(claim, signer, now_s)
    except ExpiredError:
        return reason is StopReason.DEADLINE
    except (CodecError, SignatureError):
        return False
    return False


def open_payload(claim: Claim, signer: Signer, now_s: float = 0.0) -> Payload:
    """Return the operations of a claimed chunk.

    Args:
        claim: the chunk.
        signer: checks the signature.
        now_s: server time, with which an expired payload is refused; 0: at any time.

    Raises:
        CodecError: for a payload that is missing, too large, or cannot be decoded.
        SignatureError: for one that is not signed as this side requires.
        ExpiredError: for one whose time is over.
    """
    if claim.envelope is None:
        raise CodecError("the server has lost the operations of this chunk (evicted?): submit the batch again")
    signer.check_size(claim.envelope)
    context = operations_context(claim.id.batch, claim.submit_id, claim.payload)
    return decode_payload(signer.open(claim.envelope, context, now_s))


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
        # An examination that did not come about is no error of its operation.
        envelope = b"" if claim.kind is ChunkKind.EXAMINATION else signer.seal(pack(error), context)
        return Commit(number, envelope, units=units, final=True, partial=True)
    indexes = [0] if claim.kind is ChunkKind.MERGE else list(claim.done.missing(claim.start, claim.stop))
    if not indexes:
        return Commit(number, b"", units=units, final=True)
    error = replace(error, message=clipped(error.message, max(200, MOST_ERROR_CHARS // len(indexes))))
    keys = _keys(claim, payload, indexes)
    return Commit(
        number,
        signer.seal(_segment(claim, payload, indexes, keys, error), outcome_context(claim.id.batch, claim.submit_id)),
        failed=0 if error.kind is ErrorKind.CANCELLED else len(indexes),
        cancelled=len(indexes) if error.kind is ErrorKind.CANCELLED else 0,
        units=units,
        final=True,
    )


def merged(claim: Claim, payload: Payload, signer: Signer, worker: str) -> Commit:
    """Return the final commit of a merge: the results of all shards become the outcome of their operation.

    It is the error of one where a shard has failed. Whatever stopped the batch, what they found is not thrown away.

    Args:
        claim: the merge.
        payload: its operation.
        signer: opens the results, and signs the outcome.
        worker: stands in the outcome.

    Raises:
        CodecError: for a result that cannot be decoded.
        SignatureError: for one that is not signed as this side requires.
    """
    context = partial_context(claim.id.batch, claim.submit_id, claim.payload)
    parts = [unpack(signer.open(envelope, context)) for envelope in claim.enclosed]
    error = next((part for part in parts if isinstance(part, OperationError)), None)
    if error is not None and claim.stop_reason is not None:
        return settled(claim, payload, replace(error, attempt=claim.attempt, worker=worker), signer)
    duration_s = claim.now_s - claim.first_claim_s
    body = encode_segment(
        Segment(
            first=payload.first,
            keys=payload.keys,
            indexes=range(1),
            values=[None if error is not None else merge(parts)],
            errors={} if error is None else {0: error},
            attempt=claim.attempt,
            worker=worker,
            epoch=time.time() - duration_s,
            started=[0.0],
            durations=[duration_s],
        )
    )
    return Commit(
        claim.commits + 1,
        signer.seal(body, outcome_context(claim.id.batch, claim.submit_id)),
        succeeded=int(error is None),
        failed=int(error is not None),
        final=True,
    )


STOPPED_KINDS = {StopReason.CANCELLED: ErrorKind.CANCELLED, StopReason.DEADLINE: ErrorKind.DEADLINE}
"""The kind of error that operations of a batch get which was told to stop."""

_STOPPED_WORDS = {
    StopReason.CANCELLED: "the batch was cancelled",
    StopReason.DEADLINE: "the deadline of the batch passed",
}


def stopped_message(reason: StopReason, *, running: bool) -> str:
    """Return what the error of an operation says whose batch was told to stop."""
    return f"{_STOPPED_WORDS[reason]} {'while' if running else 'before'} this operation ran"


async def settle_waiting(
    store: AttemptStore,
    attempts: Iterable[AttemptId],
    reason: StopReason,
    signer: Signer,
    worker: str,
    *,
    order: bytes | None = None,
) -> None:
    """Record why they never ran for the operations of chunks that no worker holds; claimed ones are left to theirs.

    Args:
        store: where they are settled.
        attempts: chunks that wait.
        reason: why their batch was told to stop.
        signer: opens them, and signs what is recorded.
        worker: stands in the outcomes.
        order: to cancel, as the server has it: chunks whose batch nobody who may has told to stop are given back. None:
            the caller has told it.
    """
    error = OperationError(STOPPED_KINDS[reason], "", stopped_message(reason, running=False), worker=worker)
    for attempt in attempts:
        claim = await store.claim(attempt)
        if not isinstance(claim, Claim):
            continue
        if order is not None and not is_ordered(claim, reason, order, signer, claim.now_s + CLOCK_MARGIN_S):
            await store.hand_back_all(attempt, claim.done)
            continue
        await store.commit(attempt, _stopped(claim, error, signer, worker))


def _stopped(claim: Claim, error: OperationError, signer: Signer, worker: str) -> Commit:
    """Return the final commit of a chunk that waits; a merge has all that it needs."""
    payload = readable_payload(claim, signer)
    if claim.kind is ChunkKind.MERGE and payload is not None:
        with suppress(CodecError, SignatureError):
            return merged(claim, payload, signer, worker)
    return settled(claim, payload, error, signer)


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
