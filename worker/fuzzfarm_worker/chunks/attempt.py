"""One claimed chunk on this worker, from its claim to its last commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from fuzzfarm_shared.errors import (
    CodecError,
    ExpiredError,
    FuzzfarmError,
    SchemaVersionError,
    SignatureError,
    UnknownKindError,
)
from fuzzfarm_shared.keys import AttemptPhase, ChunkKind
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_shared.payloads import Payload
from fuzzfarm_shared.schedule import StopReason
from fuzzfarm_shared.settling import (
    CLOCK_MARGIN_S,
    STOPPED_KINDS,
    is_ordered,
    merged,
    open_payload,
    settled,
    stopped_message,
)
from fuzzfarm_shared.store import Claim, Commit, Sighting
from fuzzfarm_worker.chunks.station import Station, Work
from fuzzfarm_worker.chunks.suspicion import Line
from fuzzfarm_worker.renewal import Lease, LeaseEnd

SIGN_OF_LIFE_S = 1.0
"""How often a chunk shows that the loop comes round, whatever the settings say of commits."""

_REASONS = {LeaseEnd.CANCELLED: StopReason.CANCELLED, LeaseEnd.DEADLINE: StopReason.DEADLINE}
_ENDS = {reason: end for end, reason in _REASONS.items()}

T = TypeVar("T")
log = get_logger(__name__)


class FencedError(Exception):
    """The chunk is no longer ours: what we do for it is in vain."""


class Attempt:
    """What every kind of chunk does the same way: keep its lease, commit, hand back, settle.

    Attributes:
        station: what it uses of its worker.
        claim: what the server said when the chunk was claimed.
        stop: unit after the last one that is still ours; a hand-back lowers it.
        done: units with an outcome.
        stopping: the worker is leaving: start nothing more.
        ended: why the chunk has to stop here, once it has.
        hang_after_s: seconds after which a worker whose loop did not come round is hung; None: it never is.
    """

    def __init__(self, station: Station, claim: Claim, make_work: Callable[[Attempt, Payload], Work]) -> None:
        self.station = station
        self._make_work = make_work
        self.claim = claim
        self.stop = claim.stop
        self.done = claim.done
        self.stopping = False
        self.lease = Lease(claim.id, self._on_lease_end)
        self.ended: LeaseEnd | None = None
        self._claimed_at = time.monotonic()
        self._obeying: asyncio.Task[None] | None = None
        self._number = claim.commits
        self._in_flight: asyncio.Task[Any] | None = None
        self._work: asyncio.Task[None] | None = None
        self._is_cut = False
        self.hang_after_s: float | None = None
        self._refused_order: bytes | None = None
        self._phase: AttemptPhase | None = None

    async def run(self) -> None:
        """Do the chunk's work until nothing of it is left here.

        Cancellation is as `leave`, and is raised again in the end.
        """
        self.station.renewals.hold(self.lease)
        showing_life = asyncio.create_task(self._show_life())
        self._work = asyncio.create_task(self._run())
        cancelled: asyncio.CancelledError | None = None
        while not self._work.done():
            try:
                await asyncio.wait([self._work])
            except asyncio.CancelledError as exc:
                cancelled = exc
                self.leave()
        showing_life.cancel()
        self.station.renewals.release(self.lease)
        if self._obeying is not None:
            self._obeying.cancel()
        if not self._work.cancelled():
            self._work.result()
        if cancelled is not None:
            raise cancelled

    def leave(self) -> None:
        """Start nothing more; what runs may end within the grace period, then the rest is handed back.

        Called again, end the grace period.
        """
        grace_s = 0.0 if self.stopping else self.station.settings.grace_s
        self.stopping = True
        asyncio.get_running_loop().call_later(grace_s, self._stop_work)

    async def commit(
        self,
        envelope: bytes = b"",
        *,
        units: int = 0,
        succeeded: int = 0,
        failed: int = 0,
        examples: int = 0,
        partial: bool = False,
        given_up: bool = False,
        blamed: int = 0,
        findings: Sequence[Sighting] = (),
    ) -> None:
        """Record outcomes; `done` already contains their units. Cancellation lets the commit go on.

        Raises:
            FencedError: when the chunk is no longer ours.
        """
        await self._finish_in_flight()
        self._number += 1
        await self._send(
            Commit(
                self._number,
                envelope,
                succeeded=succeeded,
                failed=failed,
                units=units,
                examples=examples,
                done=b"" if self.complete else self.done.encode(),
                final=self.complete,
                partial=partial,
                given_up=given_up,
                blamed=blamed,
                findings=findings,
            )
        )
        self.station.operations_done += succeeded + failed

    @property
    def complete(self) -> bool:
        """Whether every unit that is ours has its outcome."""
        return len(self.done.within(self.claim.start, self.stop)) >= self.stop - self.claim.start

    async def enter(self, phase: AttemptPhase) -> None:
        """Say what is done from now on, should the worker die of it.

        Raises:
            FencedError: when the chunk is no longer ours.
        """
        if phase is self._phase:
            return
        await self._finish_in_flight()
        if not await self._ask(self.station.store.enter(self.claim.id, phase)):
            raise FencedError
        self._phase = phase

    @asynccontextmanager
    async def alone(self, line: Line, turn: AbstractAsyncContextManager[None] | None = None) -> AsyncIterator[None]:
        """Run while nothing else in this line does; as long as something else does, say that this one only waits.

        `turn` waits in the line where that takes more than to enter it.

        Raises:
            FencedError: when the chunk is no longer ours.
        """
        if line.busy:
            await self.enter(AttemptPhase.WAITING)
        async with line if turn is None else turn:
            await self.enter(AttemptPhase.RUNNING)
            yield

    async def hand_back_from(self, split: int, *, suspected: bool = True) -> None:
        """Let other workers have the units from `split` on, none of which was started. Cancellation lets it go on.

        `suspected` says whether workers that died with this chunk may have died of these units.

        Raises:
            FencedError: when the chunk is no longer ours.
        """
        stop, self.stop = self.stop, split  # at once: nothing from here on may start while the server is asked
        await self._finish_in_flight()
        store = self.station.store
        if not await self._ask(
            store.hand_back_rest(self.claim.id, self.done, self.claim.start, split, stop, suspected=suspected)
        ):
            raise FencedError

    async def hand_back_all(self) -> None:
        """Let other workers have everything without an outcome; this attempt is not counted."""
        await self._finish_in_flight()
        await self.station.store.hand_back_all(self.claim.id, self.done)

    async def refuse(self) -> bool:
        """Leave the rest to other workers; True when it was refused by enough of them to be rejected here."""
        await self._finish_in_flight()
        if await self.station.store.refuse(self.claim.id, self.done):
            return True
        self.station.intake.pause(self.station.settings.share_after_s)
        return False

    async def settle(self, payload: Payload | None, kind: ErrorKind, message: str) -> None:
        """Record the same error for every unit without an outcome.

        Raises:
            FencedError: when the chunk is no longer ours.
        """
        error = OperationError(kind, "", message, attempt=self.claim.attempt, worker=self.station.name)
        await self._send_last(lambda current: settled(current, payload, error, self.station.signer))

    async def merge(self, payload: Payload) -> None:
        """Record the outcome of the operation whose shards' results this chunk holds.

        Raises:
            FencedError: when the chunk is no longer ours.
            CodecError: for a result that cannot be decoded.
            SignatureError: for one that is not signed as this worker requires.
        """
        commit = await self._send_last(lambda now: merged(now, payload, self.station.signer, self.station.name))
        self.station.operations_done += commit.succeeded + commit.failed

    async def _send_last(self, commit_of: Callable[[Claim], Commit]) -> Commit:
        """Send and return the last commit, made of the claim as it is by now."""
        await self._finish_in_flight()
        done = self.done.within(self.claim.start, self.stop)
        commit = commit_of(replace(self.claim, stop=self.stop, done=done, commits=self._number))
        self._number += 1
        await self._send(commit)
        return commit

    @property
    def now_s(self) -> float:
        """Server time, seconds since the epoch."""
        return self.claim.now_s + time.monotonic() - self._claimed_at

    def show_life(self) -> None:
        """Say that the loop comes round."""
        self.lease.deadline = None if self.hang_after_s is None else time.monotonic() + self.hang_after_s

    async def _show_life(self) -> None:
        """Say so all the time: in a task of its own, because commits may wait for the server for minutes."""
        while True:
            await asyncio.sleep(SIGN_OF_LIFE_S)
            self.show_life()

    async def _run(self) -> None:
        try:
            await self._dispatch()
        except FencedError:
            log.info("a chunk went to another worker", chunk=str(self.claim.id))

    async def _dispatch(self) -> None:
        merges = self.claim.kind is ChunkKind.MERGE
        try:
            # A merge has what it needs, however late it is.
            payload = open_payload(self.claim, self.station.signer, 0.0 if merges else self.now_s)
        except ExpiredError:
            await self._settle_stopped(open_payload(self.claim, self.station.signer), StopReason.DEADLINE)
            return
        except (CodecError, SignatureError) as exc:
            log.warning("a chunk was refused", chunk=str(self.claim.id), reason=str(exc))
            if await self.refuse():
                too_new = isinstance(exc, SchemaVersionError | UnknownKindError)
                await self.settle(None, ErrorKind.UNSUPPORTED if too_new else ErrorKind.REJECTED, str(exc))
            return
        reason = self.claim.stop_reason
        # A merge has all parts already: what they found is not thrown away.
        if reason is not None and not merges and self._is_ordered(reason, self.claim.order):
            await self._settle_stopped(payload, reason)
            return
        work = self._make_work(self, payload)
        try:
            await work.run()
        except asyncio.CancelledError:
            if self.ended is LeaseEnd.LOST:
                raise FencedError from None
            await work.leave()
            if self.ended is None:
                await self.hand_back_all()
                raise
            await self._settle_stopped(payload, _REASONS[self.ended], running=True)

    async def _settle_stopped(self, payload: Payload, reason: StopReason, *, running: bool = False) -> None:
        await self.settle(payload, STOPPED_KINDS[reason], stopped_message(reason, running=running))

    async def _send(self, commit: Commit) -> None:
        reply = await self._ask(self.station.store.commit(self.claim.id, commit))
        if reply.fenced:
            raise FencedError
        if reply.stop_reason is not None and not commit.final:
            self.lease.end(_ENDS[reply.stop_reason])

    async def _ask(self, request: Coroutine[Any, Any, T]) -> T:
        """Return the server's reply; a cancelled caller leaves the request in flight."""
        self._in_flight = asyncio.create_task(request)
        return await asyncio.shield(self._in_flight)

    async def _finish_in_flight(self) -> None:
        """Wait for a request whose caller was cancelled, and raise its error: `done` and `stop` count on its success.

        After an error only the server knows what is done, so the chunk is left to its lease.
        """
        if self._in_flight is not None:
            if not self._in_flight.done():  # else no pause, in which a cancellation could meet units counted as done
                await asyncio.wait([self._in_flight])
            self._in_flight.result()

    def _on_lease_end(self, reason: LeaseEnd) -> None:
        if reason is LeaseEnd.LOST:
            self._end(reason)
        else:
            self._obeying = asyncio.create_task(self._obey(reason))

    async def _obey(self, reason: LeaseEnd) -> None:
        """Stop if the order is one that we accept."""
        try:
            order = await self.station.store.order(self.claim.id.batch) if reason is LeaseEnd.CANCELLED else b""
        except FuzzfarmError as exc:
            log.warning("an order to stop could not be read", batch=self.claim.id.batch, reason=str(exc))
            self.lease.told = None  # the next renewal tells it again
            return
        if self._is_ordered(_REASONS[reason], order):
            self._end(reason)
        else:
            self.lease.told = None  # told again at the next renewal, when somebody may have given a true order

    def _is_ordered(self, reason: StopReason, order: bytes) -> bool:
        ordered = is_ordered(self.claim, reason, order, self.station.signer, self.now_s + CLOCK_MARGIN_S)
        if not ordered and order != self._refused_order:
            self._refused_order = order
            log.warning(
                "a batch was told to stop by somebody without our signing key, and goes on",
                batch=self.claim.id.batch,
                reason=reason.value,
            )
        return ordered

    def _end(self, reason: LeaseEnd) -> None:
        if self.ended is None:
            self.ended = reason
            self._stop_work()

    def _stop_work(self) -> None:
        """Cancel what runs, once: a second time would meet the commit of what has ended, or the hand-back."""
        if self._work is not None and not self._is_cut:
            self._is_cut = True
            self._work.cancel()
