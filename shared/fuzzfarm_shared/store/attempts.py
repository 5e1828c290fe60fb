"""Attempts: how a worker claims a chunk, keeps it, records its outcomes and gives it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fuzzfarm_shared.keys import AttemptId, AttemptPhase, ChunkKind, Lane, Part, random_bits
from fuzzfarm_shared.ranges import RangeSet
from fuzzfarm_shared.schedule import StopReason
from fuzzfarm_shared.store.findings import Sighting, sighting_arguments
from fuzzfarm_shared.store.server import Server

SETTLING_REFUSALS = 3
"""This many workers must refuse a chunk before its operations are rejected: one wrong host cannot fail a batch."""

ALIVE_MS = 10_000
"""A worker without a heartbeat for this long is not counted."""

FREED_AT_ONCE = 100
"""Chunks that one take-over frees, so that it never blocks the server for long; the next one goes on."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """Examples that ran whenever one of some workers died, as their recorders told.

    Attributes:
        first: the first of them.
        last: the last of them.
        deaths: how many workers.
        newest: whether nobody died after them of whom less is known.
    """

    first: int
    last: int
    deaths: int
    newest: bool = True


@dataclass(frozen=True, slots=True)
class Claim:
    """A leased chunk.

    Attributes:
        id: the attempt, whose token fences every write.
        envelope: the signed payload, or None if the server has lost it.
        payload: id of the payload in its batch.
        start: first unit of the chunk.
        stop: unit after its last.
        done: units that have their outcome from earlier attempts.
        deaths: how many leases of this chunk ended with their worker; less once some of it was done.
        unrecorded: in how many of these nobody knows what ran.
        loading_deaths: how often in a row workers died while they loaded the target of its operation.
        blamed: examples that were found to kill workers.
        suspects: what the recorders told of the last ones; None: nothing.
        at_once: how many operations a worker that died with it may have run at once; 0: nobody knows.
        attempt: number of this attempt, counted from 1.
        submit_id: part of every signature of this batch.
        stop_reason: why the batch was told to stop; None: it was not.
        order: the signed order of whoever cancelled it.
        now_s: server time, seconds since the epoch.
        first_claim_s: server time when any chunk of this payload was first claimed.
        batch_fuzzed_s: server time when any shard of this batch was first claimed.
        kind: what its work is.
        commits: commits that earlier holders of this token made.
        lane: what the chunk needs of a worker.
        given_up: the fuzz operation has failed and its shards need not run.
        enclosed: for a merge the envelopes of the shards' results, for an examination the finding's id and envelope.
    """

    id: AttemptId
    envelope: bytes | None
    payload: int
    start: int
    stop: int
    done: RangeSet
    deaths: int
    unrecorded: int
    loading_deaths: int
    blamed: int
    suspects: Suspects | None
    at_once: int
    attempt: int
    submit_id: str
    stop_reason: StopReason | None
    order: bytes
    now_s: float
    first_claim_s: float
    batch_fuzzed_s: float
    kind: ChunkKind
    commits: int
    lane: Lane
    given_up: bool
    enclosed: tuple[bytes, ...]


class Refused:
    """The answer to a claim by a worker that refused the chunk before; the chunk waits for another worker."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who else wants to fuzz.

    Attributes:
        waiting: shards and examinations that wait for a worker.
        others: whether there is one of another operation, or an examination, among the first of them.
        workers: live workers of the farm.
    """

    waiting: int
    others: bool
    workers: int


@dataclass(frozen=True, slots=True)
class CommitReply:
    """The answer to a commit.

    Attributes:
        fenced: the chunk is no longer ours and nothing was recorded: stop its work.
        stop_reason: why the batch was told to stop; None: it was not.
    """

    fenced: bool
    stop_reason: StopReason | None


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The answer to a heartbeat.

    Attributes:
        freed: chunks whose lease had ended, queued again.
        woken: jobs that a worker had dropped before it claimed them, queued again.
        waiting: chunks that wait on the whole farm.
        leased: chunks that run.
        due: batches that this worker should look after.
    """

    freed: int
    woken: int
    waiting: int
    leased: int
    due: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit records.

    Attributes:
        number: 1 for the first commit of an attempt, then counting up; a repeated number changes nothing.
        envelope: signed outcomes; empty for none.
        succeeded: operations with a value among them.
        failed: operations with an error among them.
        cancelled: operations that were cancelled among them.
        units: units of the chunk that have their outcome with this commit.
        examples: examples that were run.
        done: all units of the chunk with an outcome, this commit included.
        final: nothing of the chunk is left.
        given_up: the fuzz operation has failed; its other shards need not run.
        blamed: examples that were found to kill workers.
        partial: the envelope holds the result of a shard, to be merged later.
        findings: what the shard found since its last commit.
    """

    number: int
    envelope: bytes
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    units: int = 0
    examples: int = 0
    done: bytes = b""
    final: bool = False
    partial: bool = False
    given_up: bool = False
    blamed: int = 0
    findings: Sequence[Sighting] = ()


class AttemptStore:
    """The worker's way into the store; `at_once` is how many operations it may run at once."""

    def __init__(self, server: Server, worker: str, lease_s: float, at_once: int = 0) -> None:
        self._server = server
        self._worker = worker
        self._lease_ms = int(lease_s * 1000)
        self._at_once = at_once

    async def claim(self, attempt: AttemptId) -> Claim | Refused | None:
        """Move the attempt from arq's queue into our leases; None when the chunk is no longer waiting for it."""
        reply = await self._run(
            "claim", attempt, self._worker, self._lease_ms, random_bits(), SETTLING_REFUSALS, ALIVE_MS, self._at_once
        )
        if not reply:
            return None
        if reply[0] == b"refused":
            return Refused()
        envelope, payload, start, stop, done, deaths, number, submit_id = reply[1:9]
        reason, now_ms, first_claim_ms, kind, commits, lane, given_up, order, fuzzed_ms = reply[9:18]
        unrecorded, loading_deaths, blamed, first, last, recorded, newest, at_once, *enclosed = reply[18:]
        return Claim(
            id=attempt,
            envelope=envelope,
            payload=payload,
            start=start,
            stop=stop,
            done=RangeSet.decode(done),
            deaths=deaths,
            unrecorded=unrecorded,
            loading_deaths=loading_deaths,
            blamed=blamed,
            suspects=Suspects(first, last, recorded, newest == 1) if recorded else None,
            at_once=at_once,
            attempt=number,
            submit_id=submit_id.decode(),
            stop_reason=_stop_reason(reason),
            order=order,
            now_s=now_ms / 1000,
            first_claim_s=first_claim_ms / 1000,
            batch_fuzzed_s=fuzzed_ms / 1000,
            kind=ChunkKind(kind.decode()),
            commits=commits,
            lane=Lane(lane.decode()),
            given_up=given_up == 1,
            enclosed=tuple(enclosed),
        )

    async def crowd(self, attempt: AttemptId, payload: int) -> Crowd:
        """Return who else wants to fuzz, as an attempt at a shard of this payload sees it."""
        waiting, others, workers = await self._server.run("crowd", attempt.batch, payload, Lane.FUZZ.value, ALIVE_MS)
        return Crowd(waiting, others == 1, workers)

    async def commit(self, attempt: AttemptId, commit: Commit) -> CommitReply:
        """Record outcomes, once."""
        status, reason = await self._run(
            "commit",
            attempt,
            commit.number,
            commit.envelope,
            commit.succeeded,
            commit.failed,
            commit.cancelled,
            commit.units,
            commit.examples,
            commit.done,
            int(commit.final),
            int(commit.partial),
            random_bits(),
            int(commit.given_up),
            commit.blamed,
            *sighting_arguments(commit.findings, self._server.settings.findings_ttl_s),
        )
        return CommitReply(fenced=status == b"fenced", stop_reason=_stop_reason(reason))

    async def enter(self, attempt: AttemptId, phase: AttemptPhase) -> bool:
        """Say what the attempt does from now on; False when the chunk is no longer ours."""
        return bool(await self._run("enter", attempt, phase.value) == b"ok")

    async def suspect(self, attempt: AttemptId, first: int, last: int) -> bool:
        """Tell which examples ran when the attempt's worker died; False when nobody can use that any more."""
        return bool(await self._run("suspect", attempt, first, last))

    async def hand_back_rest(
        self, attempt: AttemptId, done: RangeSet, start: int, split: int, stop: int, *, suspected: bool = True
    ) -> bool:
        """Make [split, stop) a new waiting chunk and keep [start, split); False when the chunk is no longer ours.

        `suspected` says whether workers that died with the chunk may have died of what is handed back.
        """
        low, high = done.within(start, split).encode(), done.within(split, stop).encode()
        bits = random_bits()
        reply = await self._run("hand_back", attempt, "rest", bits, low, split, high, "", 0, 0, int(suspected))
        return bool(reply == b"ok")

    async def hand_back_all(self, attempt: AttemptId, done: RangeSet) -> bool:
        """Let the chunk wait again, without counting this attempt; False when it is no longer ours."""
        reply = await self._run("hand_back", attempt, "all", random_bits(), done.encode(), 0, b"", "", 0, 0)
        return bool(reply == b"ok")

    async def refuse(self, attempt: AttemptId, done: RangeSet) -> bool:
        """Leave the chunk to other workers; True when enough have refused it and this one must record why."""
        reply = await self._run(
            "hand_back",
            attempt,
            "refused",
            random_bits(),
            done.encode(),
            0,
            b"",
            self._worker,
            SETTLING_REFUSALS,
            ALIVE_MS,
        )
        return bool(reply == b"settled")

    async def take_over(self, report: bytes, report_ttl_s: float) -> TakeOver:
        """Report a heartbeat and free what dead workers hold."""
        ttl_ms = int(report_ttl_s * 1000)
        reply = await self._server.run(
            "take_over", self._worker, report, ttl_ms, random_bits(), FREED_AT_ONCE, self._lease_ms
        )
        freed, woken, waiting, leased, *due = reply
        return TakeOver(freed, woken, waiting, leased, tuple(raw.decode() for raw in due))

    async def cancel(self, batch: str, order: bytes) -> list[AttemptId] | None:
        """Cancel the batch; returns the attempts that still wait, or None when there is no such batch.

        Args:
            batch: its key.
            order: the signed order, see `cancel_order`; workers stop what runs only for one that they accept.
        """
        known, *waiting = await self._server.run("cancel", batch, order)
        return [AttemptId.parse(raw.decode()) for raw in waiting] if known else None

    async def order(self, batch: str) -> bytes:
        """Return the signed order with which the batch was cancelled; empty without one."""
        return await self._server.call("HGET", self._server.settings.keys.batch(batch, Part.META), "order") or b""

    async def _run(self, script: str, attempt: AttemptId, *args: str | float | bytes) -> Any:
        return await self._server.run(script, attempt.batch, attempt.chunk, attempt.token, *args)


def _stop_reason(raw: bytes) -> StopReason | None:
    return StopReason(raw.decode()) if raw else None


def renew_arguments(lease_s: float, attempts: Sequence[AttemptId]) -> list[str | int]:
    """Return the arguments of the renew script, which a thread runs outside the event loop."""
    return [int(lease_s * 1000), *map(str, attempts)]
