"""Chunks of a fuzz operation: a shard of its examples, and the merge of all shards' results."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.merging import combine, merge
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding, FuzzResult, OperationError
from fuzzfarm_shared.payloads import Payload
from fuzzfarm_shared.segments import Segment, encode_segment
from fuzzfarm_shared.store import Sighting, sighting
from fuzzfarm_shared.store.readings import outcome_context, partial_context
from fuzzfarm_shared.values import pack, unpack
from fuzzfarm_worker.chunks.admission import admitted
from fuzzfarm_worker.chunks.attempt import MOST_DEATHS, ONE_BY_ONE_DEATHS, Attempt
from fuzzfarm_worker.fuzzing import ShardProgress

GUIDED_SHARE = 8
"""A shard takes this part of what is left, so that shards get shorter towards the end and all workers end together
(guided self-scheduling: Polychronopoulos and Kuck, IEEE Transactions on Computers C-36, 1987)."""

LEAST_EXAMPLES = 250
"""Fewer examples than this are not worth a claim."""

LONG_S = 5.0
"""A shard that needs longer than this from now on gives half of its rest back."""

LANE_EXAMPLES = 1 << 32
"""Indexes of one shard of a run that is bounded by time: more than it can get through."""

CAREFUL_EXAMPLES = 10_000
"""Examples that run one by one after two deaths; they take about half a minute."""

MANY_DEATHS = (
    f"{MOST_DEATHS} attempts at a part of this operation ended with their worker, or failed in it: it is given up"
)
"""What the error of such an operation says."""

log = get_logger(__name__)


class ShardWork:
    """Runs a range of examples in a child; see `Work`."""

    def __init__(self, attempt: Attempt, operation: FuzzOperation) -> None:
        self._attempt = attempt
        self._operation = operation
        self._pending: list[FuzzResult] = []
        self._found: dict[str, Finding] = {}
        self._next = attempt.claim.start
        runs = attempt.done.runs
        if runs and runs[0][0] <= attempt.claim.start:
            self._next = runs[0][1]
        self._committed = self._next

    async def run(self) -> None:
        """Run the examples of this shard, or as many as the operation's time allows."""
        attempt = self._attempt
        deadline_s = self._remaining_s()
        if attempt.claim.given_up or (deadline_s is not None and deadline_s <= 0):
            await self._finish()
            return
        try:
            async with asyncio.timeout(self._operation.timeout_s):
                await self._run_examples(deadline_s)
        except TargetError as exc:
            log.warning("a target was refused", chunk=str(attempt.claim.id), reason=str(exc))
            if await attempt.refuse():
                await self._fail(ErrorKind.REJECTED, str(exc))
            return
        except TimeoutError:
            message = f"a shard took longer than timeout_s, which is {self._operation.timeout_s} s"
            await self._fail(ErrorKind.TIMEOUT, message)
            return
        except RuntimeError as exc:
            log.warning("children of a target do not work here", chunk=str(attempt.claim.id), reason=str(exc))
            if await attempt.refuse():
                await self._fail(ErrorKind.KILLED, str(exc))
            return
        if attempt.stopping:
            await self.leave()
            await attempt.hand_back_all()
        else:
            await self._confirm()
            await self._finish()

    async def _confirm(self) -> None:
        """Run what is new again; not where examples may have killed workers."""
        attempt = self._attempt
        if attempt.claim.deaths >= ONE_BY_ONE_DEATHS:
            return
        confirmed = await attempt.station.confirmer.confirm(
            self._operation, self._found.values(), proceed=lambda: not attempt.stopping
        )
        if confirmed:
            self._pending.append(replace(_nothing(self._operation.seed), findings=confirmed))

    async def leave(self) -> None:
        """Commit what the last progress told."""
        if self._pending:
            await self._commit(self._next)

    async def _run_examples(self, deadline_s: float | None) -> None:
        attempt = self._attempt
        self._operation = admitted(self._operation, attempt.station.tools.allowed)
        if attempt.claim.deaths >= ONE_BY_ONE_DEATHS:
            await self._run_one_by_one(deadline_s)
            return
        await self._keep_a_share()
        ends_at = None if deadline_s is None else time.monotonic() + deadline_s
        while self._next < attempt.stop and not attempt.stopping:
            if await self._run_some(None if ends_at is None else max(0.0, ends_at - time.monotonic())):
                return

    async def _run_one_by_one(self, deadline_s: float | None) -> None:
        """Commit each example before the next starts, because one of them may have killed workers; share the rest."""
        attempt, ends_at = self._attempt, None if deadline_s is None else time.monotonic() + deadline_s
        if attempt.claim.deaths >= MOST_DEATHS:
            blamed = await attempt.station.children.blame(self._operation, self._next, MOST_DEATHS)
            self._pending.append(replace(_nothing(self._operation.seed), examples=1, findings=[blamed]))
            self._next += 1
            await self._commit(self._next)
        if self._next + CAREFUL_EXAMPLES < attempt.stop:
            await attempt.hand_back_from(self._next + CAREFUL_EXAMPLES)
        while self._next < attempt.stop and not attempt.stopping:
            if ends_at is not None and time.monotonic() >= ends_at:
                return
            async for progress in attempt.station.children.run_shard(self._operation, self._next, self._next + 1):
                self._pending.append(progress.result)
                self._next = progress.next_index
            if self._next < attempt.stop:
                await self._commit(self._next)

    async def _run_some(self, deadline_s: float | None) -> bool:
        """Run examples, committing on the way, until what is left should be shared; True at the end of the shard.

        A shard is closed before its rest is handed back, because it must not run that; the child stays warm.
        """
        attempt, start, started = self._attempt, self._next, time.monotonic()
        commit_at = started + attempt.station.settings.commit_every_s
        shard = attempt.station.children.run_shard(self._operation, start, attempt.stop, deadline_s=deadline_s)
        async with aclosing(shard):
            async for progress in shard:
                self._take(progress)
                if attempt.stopping:
                    return False
                if time.monotonic() >= commit_at and self._committed < self._next < attempt.stop:
                    await self._commit(self._next)
                    commit_at = time.monotonic() + attempt.station.settings.commit_every_s
                    if self._takes_long(self._next - start, time.monotonic() - started):
                        break
            else:
                return True
        await attempt.hand_back_from(self._next + (attempt.stop - self._next) // 2)
        return False

    def _take(self, progress: ShardProgress) -> None:
        self._pending.append(progress.result)
        self._next = progress.next_index
        for finding in progress.result.findings:
            known = self._found.get(finding.id)
            self._found[finding.id] = finding if known is None else combine(known, finding)

    def _takes_long(self, examples: int, seconds: float) -> bool:
        """Whether what is left is worth sharing: other workers may have nothing to do for a long time."""
        left = self._attempt.stop - self._next
        if self._operation.time_s is not None or left < 2 * LEAST_EXAMPLES:
            return False
        return left * seconds / max(1, examples) > LONG_S

    async def _keep_a_share(self) -> None:
        """Hand back most of a long range at once, so that other workers start too."""
        left = self._attempt.stop - self._next
        share = max(LEAST_EXAMPLES, -(-left // GUIDED_SHARE)) if self._operation.time_s is None else LANE_EXAMPLES
        if share < left:
            await self._attempt.hand_back_from(self._next + share)

    def _remaining_s(self) -> float | None:
        if self._operation.time_s is None:
            return None
        return self._attempt.claim.first_claim_s + self._operation.time_s - self._attempt.claim.now_s

    async def _commit(self, upto: int) -> None:
        """Commit what ran and count the units up to `upto` as done."""
        attempt = self._attempt
        result = self._seen_here(merge(self._pending)) if self._pending else _nothing(self._operation.seed)
        self._pending = []
        units, self._committed = upto - self._committed, upto
        attempt.done.add_all(range(attempt.claim.start, upto))
        sightings = [self._sighting(finding) for finding in result.findings]
        await attempt.commit(
            self._sealed(pack(result)), units=units, examples=result.examples, partial=True, findings=sightings
        )

    def _seen_here(self, result: FuzzResult) -> FuzzResult:
        host = self._attempt.station.settings.name
        return replace(result, findings=[replace(finding, hosts=(host,)) for finding in result.findings])

    def _sighting(self, finding: Finding) -> Sighting:
        station = self._attempt.station
        return sighting(finding, station.settings.name, station.signer)

    async def _finish(self) -> None:
        """Commit the rest; what a time limit left out counts as done."""
        await self._commit(self._attempt.stop)

    async def _fail(self, kind: ErrorKind, message: str) -> None:
        attempt = self._attempt
        error = OperationError(kind, "", message, attempt=attempt.claim.attempt, worker=attempt.station.name)
        units, self._committed = attempt.stop - self._committed, attempt.stop
        attempt.done.add_all(range(attempt.claim.start, attempt.stop))
        await attempt.commit(self._sealed(pack(error)), units=units, partial=True, given_up=True)

    def _sealed(self, body: bytes) -> bytes:
        claim = self._attempt.claim
        return self._attempt.station.signer.seal(body, partial_context(claim.id.batch, claim.submit_id, claim.payload))


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
        parts = [unpack(attempt.station.signer.open(envelope, context)) for envelope in claim.partials]
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


def _nothing(seed: int) -> FuzzResult:
    return FuzzResult(
        examples=0, distinct_examples=0, invalid_examples=0, duration_s=0.0, executions_per_s=0.0, seed=seed
    )
