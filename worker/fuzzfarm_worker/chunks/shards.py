"""Chunks of a fuzz operation: shards of its examples, which run in turns with those of other operations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.keys import AttemptPhase
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, FuzzResult, OperationError
from fuzzfarm_worker.chunks.admission import admitted
from fuzzfarm_worker.chunks.attempt import Attempt
from fuzzfarm_worker.chunks.results import commit_result, nothing, sealed
from fuzzfarm_worker.chunks.suspicion import Blame, Suspicion
from fuzzfarm_worker.chunks.turns import LOOK_EVERY_S, SHARE_OF_AGE, Circumstances, Turn
from fuzzfarm_worker.fuzzing import ShardProgress

LONGEST_BETWEEN_COMMITS_S = 10.0
"""Of a shard that finds nothing new, however long its operation has run."""

CHANGE_WEIGHT = 0.3
"""Of the newest turn in the mean of how long it takes to have a child of another target."""

MOST_REMEMBERED = 10_000
"""Findings of which a worker remembers that it has told them."""

log = get_logger(__name__)


class ShardWork:
    """Runs a range of examples in a child, in turns with other operations; see `Work`."""

    def __init__(self, attempt: Attempt, operation: FuzzOperation) -> None:
        self._attempt = attempt
        self._operation = operation
        self._pending: list[FuzzResult] = []
        self._told = attempt.station.told
        self._next = attempt.claim.start
        runs = attempt.done.runs
        if runs and runs[0][0] <= attempt.claim.start:
            self._next = runs[0][1]
        self._suspicion = Suspicion(attempt.claim, self._next)
        self._limit = asyncio.timeout(None)
        self._committed = self._next
        self._committed_at = time.monotonic()
        self._news: set[str] = set()
        self._gave_way = False

    async def run(self) -> None:
        """Run the examples of this shard, or as many as the operation's time allows."""
        attempt = self._attempt
        deadline_s = self._remaining_s()
        if attempt.claim.given_up or (deadline_s is not None and deadline_s <= 0):
            await self._finish()
            return
        if reason := self._suspicion.reason_to_give_up(self._operation.target):
            await self._fail(ErrorKind.WORKER_LOST, reason)
            return
        try:
            async with asyncio.timeout(self._operation.timeout_s) as self._limit:
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
        if self._next < attempt.stop and (attempt.stopping or self._gave_way):
            await self.leave()
            await attempt.hand_back_all()
        else:
            await self._finish()

    async def leave(self) -> None:
        """Commit what the last progress told."""
        if self._pending:
            await self._commit(self._next)

    async def _run_examples(self, deadline_s: float | None) -> None:
        attempt = self._attempt
        ends_at = None if deadline_s is None else time.monotonic() + deadline_s
        self._operation = admitted(self._operation, attempt.station.tools.allowed)
        if attempt.claim.deaths:
            # An example may have killed the worker that it ran in: now it kills a child.
            self._operation = self._operation.model_copy(update={"isolation": "child"})
            await self._load()
        suspects = self._suspicion.examples(attempt.stop)
        if self._suspicion.is_blind and suspects.stop < attempt.stop:
            await attempt.hand_back_from(suspects.stop, suspected=False)
        await self._run_turns(suspects.start, ends_at)
        if self._next in range(suspects.start, min(suspects.stop, attempt.stop)) and not attempt.stopping:
            await self._run_one_by_one(suspects, ends_at)
            await self._run_turns(attempt.stop, ends_at)

    async def _load(self) -> None:
        """Have a child, and say so before and after, because loading the target may have killed the worker, too."""
        attempt = self._attempt
        async with self._in_line():
            if attempt.stopping:
                return
            try:
                await attempt.station.children.load(self._operation, before=lambda: attempt.enter(AttemptPhase.LOADING))
            except Exception:
                await attempt.enter(AttemptPhase.FAILED)  # whatever ends its lease, it is not that this worker died
                raise
        await attempt.enter(AttemptPhase.RUNNING)

    async def _run_one_by_one(self, suspects: range, ends_at: float | None) -> None:
        """Commit each example before the next starts, and blame the one that is known to have killed workers."""
        attempt = self._attempt
        await self.leave()
        while self._next < min(suspects.stop, attempt.stop) and not attempt.stopping:
            if ends_at is not None and time.monotonic() >= ends_at:
                return
            async with attempt.alone(attempt.station.suspect_shards, self._in_line()):
                if blame := self._suspicion.blame(self._next):
                    await self._take_blamed(blame)
                else:
                    async for progress in self._examples(self._next + 1):
                        self._take(progress)
                if self._next < attempt.stop:
                    await self._commit(self._next)

    async def _take_blamed(self, blame: Blame) -> None:
        """Take the next example for a finding, without running it."""
        children, seed = self._attempt.station.children, self._operation.seed
        finding = await children.blame(self._operation, blame.index, blame.message, generate=blame.may_generate)
        self._pending.append(replace(nothing(seed), examples=1, findings=[finding]))
        self._next += 1

    @asynccontextmanager
    async def _in_line(self) -> AsyncIterator[None]:
        """Wait until no other suspect runs on this worker, which does not count as time of this shard."""
        when, since = self._limit.when(), asyncio.get_running_loop().time()
        self._limit.reschedule(None)
        async with self._attempt.station.suspect_shards:
            waited_s = asyncio.get_running_loop().time() - since
            self._limit.reschedule(None if when is None else when + waited_s)
            yield

    def _examples(
        self, stop: int, deadline_s: float | None = None, over: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[ShardProgress, None]:
        """Run the next examples up to `stop`, recorded as those of this attempt; see `FuzzChildren.run_shard`."""
        attempt = self._attempt
        return attempt.station.children.run_shard(
            self._operation, self._next, stop, deadline_s=deadline_s, owner=str(attempt.claim.id), over=over
        )

    async def _run_turns(self, stop: int, ends_at: float | None) -> None:
        """Run examples up to `stop`, in turns with others, or give way to these."""
        if self._gave_way or self._next >= min(stop, self._attempt.stop):
            return
        around = await self._look(ends_at)
        await self._share_out(around)
        while not self._gave_way and await self._run_turn(stop, around, ends_at):
            around = await self._look(ends_at)
            self._gave_way = around.crowd.others

    async def _run_turn(self, stop: int, around: Circumstances, ends_at: float | None) -> bool:
        """Run examples, committing on the way, until it is the turn of others; False at `stop` or the shard's end."""
        attempt, started = self._attempt, time.monotonic()
        left_s, stop = None if ends_at is None else ends_at - started, min(stop, attempt.stop)
        if attempt.stopping or self._next >= stop or (left_s is not None and left_s <= 0):
            return False
        turn = Turn(look_at_s=min(LOOK_EVERY_S, around.turn_s))
        await self._follow(turn, stop, left_s, ends_at)
        station = attempt.station
        change_s = time.monotonic() - started - turn.ran_s
        station.change_s += (CHANGE_WEIGHT if station.change_s else 1.0) * (change_s - station.change_s)
        if turn.over:
            await self._share_rest(turn, ends_at)
        return turn.over

    async def _follow(self, turn: Turn, stop: int, left_s: float | None, ends_at: float | None) -> None:
        attempt = self._attempt
        async with aclosing(self._examples(stop, left_s, lambda: turn.over)) as shard:
            async for progress in shard:
                self._take(progress)
                turn.note(progress.result)
                if attempt.stopping:
                    return
                await self._commit_if_due()
                if turn.ran_s >= turn.look_at_s:
                    await self._judge(turn, ends_at)

    def _take(self, progress: ShardProgress) -> None:
        """Take in what ran. What is new on this worker is committed at once, and then examined elsewhere."""
        self._pending.append(progress.result)
        self._next = progress.next_index
        self._news |= {finding.id for finding in progress.result.findings if self._mark(finding.id) not in self._told}

    def _mark(self, identifier: str) -> tuple[str, int, str]:
        """Return what tells a finding of this operation from those of others."""
        return self._attempt.claim.id.batch, self._attempt.claim.payload, identifier

    async def _judge(self, turn: Turn, ends_at: float | None) -> None:
        """End a turn when others have waited for it, or when another worker could do half of what is left."""
        if turn.over:
            return
        around = await self._look(ends_at)
        turn.look_at_s = turn.ran_s + LOOK_EVERY_S
        if around.crowd.others:
            turn.over = turn.ran_s >= around.turn_s
            turn.look_at_s = min(turn.look_at_s, around.turn_s)
        elif not around.crowd.waiting:
            turn.over = turn.takes_long(self._attempt.stop - self._next, around.left_s)

    async def _look(self, ends_at: float | None) -> Circumstances:
        station, claim, now = self._attempt.station, self._attempt.claim, time.monotonic()
        crowd = await station.store.crowd(claim.id, claim.payload)
        return Circumstances(
            crowd=crowd,
            slots=max(1, crowd.workers) * station.settings.max_children,
            change_s=station.change_s,
            age_s=self._attempt.now_s - claim.first_claim_s,
            left_s=None if ends_at is None else ends_at - now,
        )

    async def _share_out(self, around: Circumstances) -> None:
        """Cut a new operation into shards for all workers; this attempt keeps the first one."""
        attempt = self._attempt
        if attempt.claim.start > 0 or self._next > 0 or attempt.claim.deaths > 0:
            return
        parts = around.parts(attempt.stop)
        size = -(-attempt.stop // parts)
        for place in range(parts - 1, 0, -1):
            await attempt.hand_back_from(place * size)

    async def _share_rest(self, turn: Turn, ends_at: float | None) -> None:
        """Leave half of what is left to a worker that has nothing to do, or will have nothing when it is done."""
        around = await self._look(ends_at)
        left = self._attempt.stop - self._next
        if not around.crowd.waiting and turn.takes_long(left, around.left_s):
            await self._attempt.hand_back_from(self._next + -(-left // 2))

    async def _commit_if_due(self) -> None:
        every_s = self._attempt.station.settings.commit_every_s
        age_s = self._attempt.now_s - self._attempt.claim.first_claim_s
        every_s = 0.0 if self._news else max(every_s, min(LONGEST_BETWEEN_COMMITS_S, SHARE_OF_AGE * age_s))
        is_due = time.monotonic() - self._committed_at >= every_s
        if is_due and self._committed < self._next < self._attempt.stop:
            await self._commit(self._next)

    def _remaining_s(self) -> float | None:
        if self._operation.time_s is None:
            return None
        claim = self._attempt.claim
        began_s = claim.batch_fuzzed_s if self._operation.time_from == "batch" else claim.first_claim_s
        return began_s + self._operation.time_s - claim.now_s

    async def _commit(self, upto: int) -> None:
        """Commit what ran and count the units up to `upto` as done."""
        attempt = self._attempt
        result = merge(self._pending) if self._pending else nothing(self._operation.seed)
        self._pending = []
        self._committed_at = time.monotonic()
        units, self._committed = upto - self._committed, upto
        attempt.done.add_all(range(attempt.claim.start, upto))
        await commit_result(attempt, result, units, examine=self._news)
        if len(self._told) > MOST_REMEMBERED:
            self._told.clear()
        self._told.update(map(self._mark, self._news))
        self._news = set()

    async def _finish(self) -> None:
        """Commit the rest; what a time limit left out counts as done."""
        await self._commit(self._attempt.stop)

    async def _fail(self, kind: ErrorKind, message: str) -> None:
        attempt = self._attempt
        error = OperationError(kind, "", message, attempt=attempt.claim.attempt, worker=attempt.station.name)
        units, self._committed = attempt.stop - self._committed, attempt.stop
        attempt.done.add_all(range(attempt.claim.start, attempt.stop))
        await attempt.commit(sealed(attempt, error), units=units, partial=True, given_up=True)
