"""A chunk of calls and subprocess jobs: run through the kernel, committed in columns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from math import inf
from typing import Any

from fuzzfarm_shared.errors import FuzzfarmError, TargetError
from fuzzfarm_shared.keys import ONE_BY_ONE_DEATHS, AttemptPhase
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.operations import LEFT_TO_WORKER, AnyOperation, CallOperation
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_shared.payloads import Payload
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_shared.store.readings import outcome_context
from fuzzfarm_worker.chunks.attempt import SIGN_OF_LIFE_S, Attempt
from fuzzfarm_worker.chunks.recorder import Recorder
from fuzzfarm_worker.chunks.suspicion import reason_to_give_up_operation
from fuzzfarm_worker.chunks.telling import Teller
from fuzzfarm_worker.executors.kernel import Call, Record
from fuzzfarm_worker.executors.run import Run
from fuzzfarm_worker.failures import OperationFailedError, PoisonError
from fuzzfarm_worker.handlers import Handler, RefusedError, handler_for
from fuzzfarm_worker.handlers.board import Board
from fuzzfarm_worker.renewal import LeaseEnd
from fuzzfarm_worker.sandbox import Timed
from fuzzfarm_worker.sandbox.link import LOAD_TIMEOUT_S

HANG_MARGIN_S = 5.0
"""A loop that did not come round for this long after the longest time-out of a chunk is hung."""

MOST_REASONS = 5
"""Reasons that the error of each refused operation of a chunk names, of those of all of them."""

log = get_logger(__name__)


class ChildrenLostError(FuzzfarmError):
    """Operations of this chunk died with what keeps children on this host: as if the worker had died with them."""


class OperationsWork:
    """Runs the operations of one chunk; see `Work`.

    After a worker died with this chunk, its calls run in children, so that a second death tells which one it was and
    costs no worker; jobs are children already. If a second worker dies all the same, the operations that it may have
    run are tried one at a time on the worker, each committed before the next starts.
    """

    def __init__(self, attempt: Attempt, payload: Payload) -> None:
        self._attempt = attempt
        self._payload = payload
        settings = attempt.station.settings
        self._specs = [_completed(spec, settings) for spec in payload.specs]
        self._recorder = Recorder(payload, attempt.claim.attempt, attempt.station.name, settings.max_payload_bytes)
        self._next = attempt.claim.start
        self._handlers: list[Handler | None] = []
        self._refusals: list[TargetError] = []
        self._lost = ""
        self._record: Record = self._recorder.record
        self._board = Board()
        self._teller = Teller(attempt, payload, self._board)
        self._ended = asyncio.Event()
        self._run: Run | None = None
        self._alone = attempt.claim.unrecorded >= ONE_BY_ONE_DEATHS
        self._all_committed = False

    async def run(self) -> None:
        """Run what can be run here; refuse what cannot."""
        claim = self._attempt.claim
        if reason := reason_to_give_up_operation(claim):
            await self._give_up_first(reason)
            if self._attempt.complete:
                return
        self._prepare()
        if self._alone:
            await self._hand_back_unsuspected()
            await self._run_one_by_one()
        else:
            await self._run_all()
        await self._commit()
        if self._attempt.complete:
            return
        if self._lost:
            raise ChildrenLostError(f"children of this worker died with their guardian: {self._lost}")
        if self._refusals and not self._attempt.stopping:
            await self._refuse_rest()
        else:
            await self._attempt.hand_back_all()

    async def leave(self) -> None:
        """Commit what has ended."""
        await self._commit()

    def _prepare(self) -> None:
        recorded = self._attempt.claim.deaths > 0
        for spec in self._specs:
            # An import runs in the loop, too: without an end of its own it would keep the chunk here for ever.
            self._attempt.lease.deadline = time.monotonic() + LOAD_TIMEOUT_S
            try:
                self._handlers.append(handler_for(spec, self._attempt.station.tools, recorded=recorded))
            except TargetError as exc:
                self._handlers.append(None)
                self._refusals.append(exc)
        calls = [spec for spec in self._specs if isinstance(spec, CallOperation)]
        in_children = bool(calls) and (recorded or any(spec.isolation == "child" for spec in calls))
        if in_children or any(handler is not None and handler.tells for handler in self._handlers):
            self._record = self._record_child  # in all other chunks a step less for each operation
        limits = [inf if spec.timeout_s is None else spec.timeout_s for spec in self._specs]
        # Not of the handlers: those of children have none, because they see to it themselves.
        longest = max(limits) + HANG_MARGIN_S
        self._attempt.hang_after_s = None if longest == inf else longest
        self._attempt.show_life()

    def _record_child(self, index: int, ok: bool, value: Any, tries: int, started: float, took_s: float) -> None:
        """Record an outcome of a chunk with children; calls in them may have waited for one in their slots."""
        self._board.remove(index)
        if isinstance(value, RefusedError):
            self._refusals.append(value.error)
            spec_of = self._payload.spec_of
            self._handlers[0 if spec_of is None else spec_of[index]] = None  # the rest of its kind need not try
            return
        if isinstance(value, OperationFailedError) and value.error.kind is ErrorKind.WORKER_LOST:
            self._lost = value.error.message
            return
        if isinstance(value, Timed):
            value, started, took_s = value
        elif isinstance(value, OperationFailedError | PoisonError) and value.span is not None:
            started, took_s = value.span
        self._recorder.record(index, ok, value, tries, started, took_s)

    async def _run_all(self) -> None:
        if self._attempt.claim.deaths:
            await self._attempt.enter(AttemptPhase.RUNNING)
        async with self._kept(self._keep()):
            self._run = self._attempt.station.kernel.open(self._calls(), self._record)
            await self._run.completed()

    @asynccontextmanager
    async def _kept(self, keeping: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Keep the chunk while the block runs; `keeping` returns when `_ended` is set."""
        keeper = asyncio.create_task(keeping)
        try:
            yield
        finally:
            self._ended.set()
            await keeper
            await self._teller.aclose()

    async def _tell(self) -> None:
        """While operations run one by one, each with its retries: tell how far they are."""
        while not await self._ends_within(SIGN_OF_LIFE_S):
            self._teller.tell_soon()

    async def _give_up_first(self, reason: str) -> None:
        """Record the error of the operation at which workers died; before its target is loaded, which may kill too."""
        claim = self._attempt.claim
        victim = next(self._attempt.done.missing(claim.start, claim.stop), None)
        if victim is not None:
            error = OperationFailedError(OperationError(ErrorKind.WORKER_LOST, "", reason))
            self._recorder.record(victim, False, error, claim.attempt - 1, time.monotonic(), 0.0)
            await self._commit()

    async def _hand_back_unsuspected(self) -> None:
        """Give back what no worker can have died of that had started as many operations as it runs at once.

        Some of these may have ended, unrecorded, and others begun in their place: then the next deaths tell.
        """
        attempt = self._attempt
        missing = attempt.done.missing(attempt.claim.start, attempt.claim.stop)
        started = attempt.claim.at_once or attempt.station.settings.max_concurrency
        split = next(islice(missing, started, None), attempt.stop)
        if split < attempt.stop:
            await attempt.hand_back_from(split, suspected=False)

    async def _run_one_by_one(self) -> None:
        """Run one operation at a time, and only the first without an outcome, against which deaths are held."""
        attempt = self._attempt
        async with self._kept(self._tell()):
            for call in self._calls():
                if self._first_missing() != call[0]:
                    break
                async with attempt.alone(attempt.station.suspect_operations):
                    if attempt.stopping:
                        break
                    if call[0] + 1 >= attempt.stop:
                        attempt.station.intake.started_all(attempt.claim.id)
                    await attempt.station.kernel.run(iter((call,)), self._record)
                    await self._commit()
        skipped = self._first_missing()
        if self._refusals and not attempt.stopping and skipped is not None:
            await attempt.hand_back_from(skipped + 1)

    def _first_missing(self) -> int | None:
        attempt = self._attempt
        return next(attempt.done.missing(attempt.claim.start, attempt.stop), None)

    def _calls(self) -> Iterator[Call]:
        """Yield calls in order until the chunk ends, its rest is handed back, or the worker leaves."""
        attempt, payload, handlers = self._attempt, self._payload, self._handlers
        left, right, spec_of = payload.left, payload.right, payload.spec_of
        for index in attempt.done.missing(attempt.claim.start, attempt.claim.stop):
            if index >= attempt.stop or attempt.stopping:
                break
            self._next = index + 1
            handler = handlers[0 if spec_of is None else spec_of[index]]
            if handler is None:
                continue
            try:
                args, kwargs = handler.arguments(left[index], None if right is None else right[index])
            except TargetError as exc:
                self._refusals.append(exc)
                continue
            if handler.tells:
                args = (self._board.post(index), *args)
            if index + 1 >= attempt.stop and not self._alone:
                # Said before the last call starts: when that takes the last slot nobody asks for another.
                attempt.station.intake.started_all(attempt.claim.id)
            yield index, handler.function, args, kwargs, handler.timeout_s, handler.retries, handler.retry_delay_s
        self._next = attempt.stop
        attempt.station.intake.started_all(attempt.claim.id)

    async def _keep(self) -> None:
        """While operations run: commit what has ended, give back what has not started, show that the loop lives."""
        settings = self._attempt.station.settings
        now = time.monotonic()
        commit_at, share_at = now + settings.commit_every_s, now + settings.share_after_s
        try:
            while not await self._ends_within(min(commit_at, share_at, now + SIGN_OF_LIFE_S) - now):
                now = time.monotonic()
                if now >= commit_at:
                    await self._commit()
                    commit_at = now + settings.commit_every_s
                if now >= share_at:
                    await self._share()
                    share_at = now + settings.commit_every_s
                self._teller.tell_soon()  # after the commit, which makes the server forget what was told before
        except Exception:
            self._attempt.lease.end(LeaseEnd.LOST)  # ends the work too, and whoever waits for this task gets the error
            raise

    async def _share(self) -> None:
        # What was pulled ahead has not started. Of a worker that leaves it goes back with the rest of the chunk.
        while self._run is not None and self._run.take_back(self._next - 1):
            self._next -= 1
        if self._next < self._attempt.stop and not self._attempt.stopping:
            await self._attempt.hand_back_from(self._next)
            self._attempt.station.intake.started_all(self._attempt.claim.id)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def _commit(self) -> None:
        attempt = self._attempt
        context = outcome_context(attempt.claim.id.batch, attempt.claim.submit_id)
        recorded = False
        for segment in self._recorder.take():
            recorded = True
            attempt.done.add_all(segment.indexes)
            count = len(segment.indexes)
            await attempt.commit(
                attempt.station.signer.seal(segment.body, context),
                units=count,
                succeeded=count - segment.failed,
                failed=segment.failed,
            )
        if not recorded and self._ended.is_set() and attempt.complete and not self._all_committed:
            await attempt.commit()  # it became empty because all of it was handed back
        self._all_committed = attempt.complete

    async def _refuse_rest(self) -> None:
        reasons = "; ".join(islice(dict.fromkeys(str(exc) for exc in self._refusals), MOST_REASONS))
        log.warning("operations were refused", chunk=str(self._attempt.claim.id), reason=reasons)
        if await self._attempt.refuse():
            await self._attempt.settle(self._payload, ErrorKind.REJECTED, reasons)


def _completed(spec: AnyOperation, settings: WorkerHostSettings) -> AnyOperation:
    """Return the options of an operation, those that it leaves to its worker from the settings."""
    left = {name: getattr(settings, name) for name in LEFT_TO_WORKER if name not in spec.model_fields_set}
    return spec.model_copy(update=left) if left else spec
