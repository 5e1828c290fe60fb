"""One run: the calls of one iterator, spread over lanes and threads of a kernel."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from contextvars import copy_context
from functools import partial
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any

from fuzzfarm_worker.executors.calls import Call, Pulled, Record, Retry, backoff_s, failures_before, may_retry
from fuzzfarm_worker.executors.crew import Crew, close_awaitable
from fuzzfarm_worker.executors.lane import CANCEL_GRACE_S, Lane, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuzzfarm_worker.executors.kernel import Kernel

# Lanes are multiplied by this in each iteration of the loop while all of them are busy: 50
# are there after three iterations, and a run whose operations never suspend keeps one.
GROWTH = 3

# Operations that wait for their retry hold no slot. At this many per slot the run pulls no
# new call, so that an iterator of failing operations costs bounded memory.
MAX_DELAYED_PER_SLOT = 16


class Run:
    """The calls of one iterator on their way to one record function.

    With `values`, those of operations that succeed are put there by their index instead of
    being recorded, which saves a call per operation.
    A lasting run does not end with its iterator, but goes on at the next `wake()`.
    """

    def __init__(
        self,
        kernel: Kernel,
        calls: Iterator[Call],
        record: Record,
        *,
        lasting: bool = False,
        values: list[Any] | None = None,
    ) -> None:
        self.kernel = kernel
        self.loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self.context = copy_context()
        self.calls = calls
        self.record = record
        self.values = values
        self.lanes: set[Lane] = set()
        self.idle = 0
        self.held = 0
        self.queued = False
        self.lasting = lasting
        self.exhausted = False
        self.stopped = False
        self.ready: deque[Pulled] = deque()
        self.crew = Crew(self)
        self.finished: asyncio.Future[None] = self.loop.create_future()
        self._growing = False
        self._delayed: list[tuple[float, int, Pulled]] = []
        self._delays = itertools.count()
        self._delay_timer: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None

    @property
    def running(self) -> int:
        """How many operations run now."""
        return len(self.lanes) - self.idle + self.crew.running

    def is_here(self) -> bool:
        """Whether its event loop is the one that runs in this thread; half the price of asking asyncio for that."""
        return self._thread == get_ident() and self.loop.is_running()

    @property
    def backed_up(self) -> bool:
        """Whether so many operations wait for a retry that no new call is pulled."""
        return len(self._delayed) >= MAX_DELAYED_PER_SLOT * self.kernel.max_concurrency

    async def completed(self) -> None:
        """Wait for the end of the run; when cancelled, stop it and wait for what was running."""
        try:
            await self.finished
        finally:
            self.stop()
            try:
                await self._drain()
            finally:
                self.kernel.forget(self)

    async def _drain(self) -> None:
        deadline = monotonic() + CANCEL_GRACE_S
        cancelled: asyncio.CancelledError | None = None
        while self.held or self.lanes:
            self._emptied = self.loop.create_future()
            try:
                await asyncio.wait([self._emptied], timeout=max(0.0, deadline - monotonic()))
            except asyncio.CancelledError as exc:
                cancelled = exc  # what runs is being cancelled already
            if monotonic() >= deadline:
                for lane in list(self.lanes):
                    self.abandon(lane)
        if cancelled is not None:
            raise cancelled

    def wake(self) -> None:
        """Look again at an iterator that had ended: it has more."""
        self.exhausted = False
        self.arm_growth()

    def cancel(self, index: Any) -> bool:
        """Cancel one operation; it is recorded with a CancelledError, unless it ignores that.

        False if it runs in a thread, which cannot be cancelled, or is unknown.
        """
        for lane in self.lanes:
            if not lane.idle and lane.call is not None and lane.call[0] is index:
                return lane.cancel()
        if (ahead := self.crew.take_back(index)) is not None:
            self._record_cancelled(ahead)
            return True
        for entry in self._delayed:
            if entry[2].call[0] is index:
                self._delayed.remove(entry)
                heapq.heapify(self._delayed)
                self._record_cancelled(entry[2])
                return True
        for position, pulled in enumerate(self.ready):
            if pulled.call[0] is index:
                del self.ready[position]
                close_awaitable(pulled.awaitable)
                self._record_cancelled(pulled)
                return True
        return False

    def cancel_waiting(self) -> None:
        """Cancel what has been pulled but does not run: ahead of its start, or between two tries."""
        retries = [pulled for pulled in self.ready if pulled.attempt > 1 and pulled.awaitable is None]
        others = [pulled for pulled in self.ready if pulled.attempt == 1 or pulled.awaitable is not None]
        waiting = [*self.crew.take_all_back(), *retries, *(pulled for _, _, pulled in sorted(self._delayed))]
        self.ready.clear()
        self.ready.extend(others)
        self._delayed.clear()
        for pulled in waiting:
            self._record_cancelled(pulled)

    def take_back(self, index: Any) -> bool:
        """Take a call out that was pulled ahead of the threads, as if it had not been pulled.

        False if it has begun, or is no such call.
        """
        pulled = self.crew.take_back(index)
        if pulled is None:
            return False
        if pulled.attempt > 1:
            self.ready.append(pulled)
            self.settle()
            return False
        return True

    def _record_cancelled(self, pulled: Pulled) -> None:
        error = asyncio.CancelledError()
        self.conclude(pulled.call, pulled.attempt, False, error, started=monotonic(), duration_s=0.0)
        self.settle()

    def pull(self) -> Call | None:
        """The next call, or None at the end of the iterator or after it failed."""
        if self.exhausted or self.stopped:
            return None
        try:
            call = next(self.calls, None)
        except Exception as exc:  # noqa: BLE001 - the iterator is the caller's: its error ends the run
            self.fail(exc)
            return None
        self.exhausted = call is None
        return call

    def must_yield(self) -> bool:
        """Whether another run needs one of this run's slots."""
        return self.kernel.slots.must_yield(self)

    def conclude(self, call: Call, attempt: int, ok: bool, value: Any, *, started: float, duration_s: float) -> None:
        """Record the outcome of an attempt, or see to the next one."""
        if self.stopped:
            return
        if not ok and may_retry(call, attempt, value):
            retry = Retry.after(attempt, value)
            self._retry_later(Pulled(call, retry), monotonic() + backoff_s(call[6], attempt))
            return
        if not ok:
            for failure in failures_before(attempt):
                value.add_note(failure)
        try:
            if ok and self.values is not None:
                self.values[call[0]] = value
            else:
                self.record(call[0], ok, value, attempt, started, duration_s)
        except Exception as exc:  # noqa: BLE001 - the caller's record function: its error ends the run
            self.fail(exc)

    def arm_growth(self) -> None:
        """Have the number of lanes looked at in the next iteration of the loop."""
        if not self._growing:
            self._growing = True
            self.loop.call_soon(self.grow)

    def grow(self) -> None:
        """Start lanes for calls that could run now, if all lanes are busy with operations."""
        self._growing = False
        self.crew.reinforce_if_stuck()
        if self.idle and len(self.ready) <= self.idle:
            return
        for _ in range(max(1, GROWTH * self.held)):
            if not self._may_have_next() or not self.kernel.slots.take(self):
                return
            # A lane is only started for a call that it finds waiting, so that the last call
            # of an iterator does not bring a crowd of lanes for nothing.
            if len(self.ready) <= self.idle:
                call = self.pull()
                if call is None:
                    self.give_slot()
                    self.settle()
                    return
                self.ready.append(Pulled(call, 1))
            self._start_lane()

    offered = grow

    def give_slot(self) -> None:
        """Give one slot back to the kernel."""
        self.kernel.slots.give(self)

    def settle(self) -> None:
        """Go on with what is left, or end the run when nothing is."""
        if not self.stopped and self._may_have_next():
            self.arm_growth()
        elif self.held == 0 and not self.lanes:
            if self._emptied is not None and not self._emptied.done():
                self._emptied.set_result(None)
            if not self._delayed and not self.lasting and not self.finished.done():
                self.finished.set_result(None)

    def fail(self, error: BaseException) -> None:
        """End the run with an error that is no operation's: of the iterator or of `record`."""
        if not self.finished.done():
            self.finished.set_exception(error)
        self.stop()

    def stop(self) -> None:
        """Cancel what runs, drop what waits; nothing is recorded any more."""
        if self.stopped:
            return
        self.stopped = True
        if not self.finished.done():
            self.finished.set_result(None)
        for pulled in self.ready:
            close_awaitable(pulled.awaitable)
        self.ready.clear()
        self._delayed.clear()
        if self._delay_timer is not None:
            self._delay_timer.cancel()
        for lane in list(self.lanes):
            lane.stop()
        self.crew.stop()
        self.kernel.slots.leave(self)
        self.settle()

    def expire(self, now: float) -> float:
        """Time out what is late; return the next deadline."""
        nearest = self.crew.expire(now)
        for lane in list(self.lanes):
            nearest = min(nearest, lane.expire(now))
        return nearest

    def abandon(self, lane: Lane) -> None:
        """Leave a lane to an operation that ignores its cancellation, and free its slot."""
        lane.state = State.ABANDONED
        self.lanes.discard(lane)
        if lane.task is not None:
            self.kernel.keep_abandoned(lane.task)
        self.give_slot()
        self.settle()

    def _may_have_next(self) -> bool:
        if self.stopped:
            return False
        if len(self.ready) > self.idle:
            return True
        return not (self.exhausted or self.backed_up or self.crew.saturated)

    def _start_lane(self) -> None:
        lane = Lane(self)
        self.idle += 1
        self.lanes.add(lane)
        # A copy: context variables that an operation sets stay in its lane.
        lane.task = self.loop.create_task(lane.work(), context=self.context.copy())
        # A callback, not a `finally`: a task cancelled before its first step runs no code.
        lane.task.add_done_callback(partial(self.lane_ended, lane))

    def lane_ended(self, lane: Lane, task: asyncio.Task[None]) -> None:
        """Take the slot of a lane whose task has ended."""
        error = None if task.cancelled() else task.exception()
        if lane.state is State.ABANDONED:
            return
        self.lanes.discard(lane)
        if lane.idle:
            self.idle -= 1
        if lane.holds_slot:
            self.give_slot()
        if error is not None:
            self.fail(error)
        self.settle()

    def _retry_later(self, pulled: Pulled, due: float) -> None:
        heapq.heappush(self._delayed, (due, next(self._delays), pulled))
        if self._delayed[0][2] is pulled:
            self._set_delay_timer()

    def _set_delay_timer(self) -> None:
        if self._delay_timer is not None:
            self._delay_timer.cancel()
        delay_s = max(0.0, self._delayed[0][0] - monotonic())
        self._delay_timer = self.loop.call_later(delay_s, self._retry_due)

    def _retry_due(self) -> None:
        self._delay_timer = None
        now = monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            self.ready.append(heapq.heappop(self._delayed)[2])
        if self._delayed:
            self._set_delay_timer()
        self.settle()
