"""The sync operations of one run: pulled in bulk by the loop, drained by threads.

    iterator --refill--> pending --drain (threads)--> finished --collect--> record
               loop                                               loop

While operations are short one thread drains them and the loop looks at the results every few
milliseconds; as soon as they turn out long, or one hangs, the run brings more threads, up to
its slots. A wake-up of the loop per result would cost more than a short operation itself, so
the first result wakes the loop and the loop then polls until a look finds nothing (the
interrupt mitigation of Linux' NAPI, https://docs.kernel.org/networking/napi.html).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Coroutine
from contextlib import suppress
from itertools import islice
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from fuzzfarm_worker.executors.calls import Call, Pulled, runs_on_loop
from fuzzfarm_worker.executors.errors import OperationTimeoutError, ThreadsExhaustedError
from fuzzfarm_worker.executors.threads import WorkThread

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from fuzzfarm_worker.executors.run import Run

# Work pulled ahead of the threads: one switch interval of the interpreter, since the loop may
# have to wait that long for the interpreter lock before it can refill.
LOOK_AHEAD_S = 0.005
MAX_LOOK_AHEAD = 8192

# How often the loop looks for results while they keep coming: a small part of a human's or a
# lease's patience, and 50 times rarer than the cost of a look.
POLL_S = 0.002

# Threads are multiplied by this while they are stuck, like the lanes of a run.
REINFORCEMENT = 3

# Below this, handing an operation to a second thread costs more than running it.
SHORT_S = 20e-6

Finished: TypeAlias = tuple[Call, int, bool, Any, float, float]


class Crew:
    """Threads, and the sync operations that they run, of one run."""

    def __init__(self, run: Run) -> None:
        self.threads: set[WorkThread] = set()
        self._run = run
        # By index, so that one is taken back without a search; each of its methods is one step to other threads.
        self._pending: OrderedDict[Any, tuple[Call, int]] = OrderedDict()
        self._finished: deque[Finished | WorkThread] = deque()
        self._polling = False
        self._timer: TimerHandle | None = None
        self._stopped = False
        self._stuck = False
        self._mean_s: float | None = None
        self._shortest_timeout_s = inf

    @property
    def saturated(self) -> bool:
        """Whether one more slot would not help: the threads keep up with short operations."""
        return bool(self.threads) and self._mean_s is not None and self._mean_s < SHORT_S

    @property
    def running(self) -> int:
        """How many operations are in threads now."""
        return sum(thread.current is not None for thread in self.threads)

    def accept(self, call: Call, attempt: int) -> bool:
        """Take an operation over from a lane; True when the lane's slot now belongs to a thread."""
        pool = self._run.kernel.pool
        if self.saturated:
            self._add(call, attempt)
            return False
        if pool.exhausted:
            self._refuse(call, attempt)
            return False
        self._add(call, attempt)
        self.threads.add(pool.hire(self))
        return True

    @property
    def full(self) -> bool:
        """Whether enough operations wait for the threads."""
        return len(self._pending) >= self._look_ahead

    def take_back(self, index: Any) -> Pulled | None:
        """Take an operation out that no thread has begun; None if there is none of this index."""
        pending = self._pending.pop(index, None)
        return None if pending is None else Pulled(*pending)

    def take_all_back(self) -> list[Pulled]:
        """Take out all that no thread has begun."""
        taken: deque[Pulled] = deque()
        with suppress(KeyError):
            while True:  # one by one and from the end, because threads go on to take from the beginning
                taken.appendleft(Pulled(*self._pending.popitem()[1]))
        return list(taken)

    def reinforce_if_stuck(self) -> None:
        """Bring more threads for operations that wait behind long ones."""
        run = self._run
        if not self._stuck or self._stopped:
            return
        for _ in range(min(len(self._pending), REINFORCEMENT * len(self.threads))):
            if run.kernel.pool.exhausted or not run.kernel.slots.take(run):
                return
            self.threads.add(run.kernel.pool.hire(self))
        self._start_polling()

    def stop(self) -> None:
        """Drop what waits and leave the threads to operations that run; record nothing more."""
        # Threads look at the flag after they published an operation, so each one either
        # sees it or is seen here.
        self._stopped = True
        self.take_all_back()
        if self._timer is not None:
            self._timer.cancel()
        for thread in list(self.threads):
            if (current := thread.current) is not None and self._run.kernel.pool.abandon(thread, current[3]):
                self._lose(thread)

    def expire(self, now: float) -> float:
        """Time out operations whose deadline has passed; return the next deadline."""
        nearest = now + self._shortest_timeout_s if self.threads else inf
        for thread in list(self.threads):
            if (current := thread.current) is None:
                continue
            call, attempt, started, claim = current
            if (timeout_s := call[4]) is None:
                continue
            if started + timeout_s > now:
                nearest = min(nearest, started + timeout_s)
            elif self._run.kernel.pool.abandon(thread, claim):
                self._replace(thread)
                self._run.conclude(
                    call, attempt, False, OperationTimeoutError(timeout_s), started=started, duration_s=now - started
                )
        self._run.settle()
        return nearest

    def drain(self, thread: WorkThread) -> bool:
        """Run pending operations in `thread` until none is left; False when it was abandoned."""
        pending, finished, context = self._pending, self._finished, self._run.context
        while True:
            try:
                _, (call, attempt) = pending.popitem(last=False)
            except KeyError:
                break
            _, fn, args, kwargs, *_ = call
            claim: list[None] = [None]
            started = monotonic()
            thread.current = (call, attempt, started, claim)
            if self._stopped:
                return self._leave(thread, claim)
            ok = True
            value: Any
            try:
                value = context.copy().run(fn, *args, **kwargs) if kwargs else context.copy().run(fn, *args)
            except BaseException as exc:  # noqa: BLE001 - SystemExit too is this operation's error
                ok, value = False, exc.with_traceback(exc.__traceback__ and exc.__traceback__.tb_next)
            duration_s = monotonic() - started
            try:
                claim.pop()
            except IndexError:
                return False
            finished.append((call, attempt, ok, value, started, duration_s))
            # An idle thread keeps neither the arguments nor the value of its last operation.
            del call, fn, args, kwargs, value
            if not self._polling and pending:
                self._polling = True
                self._wake(self._poll)
        self._end_session(thread)
        return True

    def _leave(self, thread: WorkThread, claim: list[None]) -> bool:
        try:
            claim.pop()
        except IndexError:
            return False
        self._end_session(thread)
        return True

    def _end_session(self, thread: WorkThread) -> None:
        thread.current = None
        self._finished.append(thread)
        self._wake(self._attend)

    def _wake(self, callback: Any) -> None:
        try:
            self._run.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self._run.loop.is_closed():
                raise

    def _add(self, call: Call, attempt: int) -> None:
        self._pending[call[0]] = (call, attempt)
        if (timeout_s := call[4]) is not None:
            self._guard(timeout_s)

    def _guard(self, timeout_s: float) -> None:
        """Have the alarm ring in time for an operation that starts now or later."""
        self._shortest_timeout_s = min(self._shortest_timeout_s, timeout_s)
        self._run.kernel.alarm.set(monotonic() + timeout_s)

    def _poll(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._stopped:
            return
        if self._attend() or self._finished:
            self._polling = True
            self._timer = self._run.loop.call_later(POLL_S, self._poll)
            return
        self._polling, self._timer = False, None
        if self._pending:
            # Nothing ended since the last look although operations wait: the threads are
            # stuck in long ones, whatever the mean was.
            self._mean_s, self._stuck = None, True
            self._run.arm_growth()

    def _attend(self) -> int:
        """Record what ended, pull more, send threads back to work; return how many ended."""
        ended, idle = self._collect()
        self._refill(len(idle))
        for thread in idle:
            if self._pending and not self._stopped:
                thread.inbox.put(self)
            else:
                self._run.kernel.pool.release(thread)
                self._lose(thread)
        self._start_polling()
        self._run.settle()
        return ended

    def _start_polling(self) -> None:
        if self._pending and not self._polling and not self._stopped:
            self._polling = True
            self._timer = self._run.loop.call_later(POLL_S, self._poll)

    def _collect(self) -> tuple[int, list[WorkThread]]:
        """Record what ended; return how many operations, and the threads without work."""
        idle: list[WorkThread] = []
        ended, spent_s = 0, 0.0
        try:
            while self._finished:
                item = self._finished.popleft()
                if isinstance(item, WorkThread):
                    idle.append(item)
                elif not self._stopped:
                    ended += 1
                    spent_s += item[5]
                    self._settle_operation(item)
        except Exception as exc:  # noqa: BLE001 - of the caller's record function: it ends the run
            self._run.fail(exc)
            return ended, idle + self._collect()[1]
        if ended:
            self._mean_s, self._stuck = spent_s / ended, False
        return ended, idle

    def _settle_operation(self, finished: Finished) -> None:
        call, attempt, ok, value, started, duration_s = finished
        run = self._run
        if not ok:
            run.conclude(call, attempt, ok, value, started=started, duration_s=duration_s)
        elif hasattr(value.__class__, "__await__"):
            # A lambda or partial may have made a coroutine: a lane awaits it, on the loop.
            run.ready.append(Pulled(call, attempt, value, started))
            run.arm_growth()
        elif run.values is not None:
            run.values[call[0]] = value
        else:
            run.record(call[0], True, value, attempt, started, duration_s)

    def _refill(self, idle: int) -> None:
        run, pending = self._run, self._pending
        room = max(self._look_ahead, idle) - len(pending)
        if room <= 0 or run.ready or run.exhausted or run.stopped or run.must_yield():
            return
        sync_fn: object = None
        pulled = 0
        try:
            for call in islice(run.calls, room):
                pulled += 1
                if call[1] is not sync_fn and runs_on_loop(call[1]):
                    run.ready.append(Pulled(call, 1))
                    run.arm_growth()
                    return
                sync_fn = call[1]
                pending[call[0]] = (call, 1)
                # While there are threads, the sweep comes back after the shortest timeout.
                if (timeout_s := call[4]) is not None and timeout_s < self._shortest_timeout_s:
                    self._guard(timeout_s)
        except Exception as exc:  # noqa: BLE001 - the iterator is the caller's: its error ends the run
            run.fail(exc)
        else:
            run.exhausted = pulled < room

    @property
    def _look_ahead(self) -> int:
        if self._mean_s is None:
            return 0
        return min(MAX_LOOK_AHEAD, int(LOOK_AHEAD_S * len(self.threads) / max(self._mean_s, 1e-7)))

    def _replace(self, thread: WorkThread) -> None:
        """Let a fresh thread have the slot of an abandoned one, if operations wait for it."""
        pool = self._run.kernel.pool
        if not self._pending or pool.exhausted:
            self._lose(thread)
        else:
            self.threads.discard(thread)
            self.threads.add(pool.hire(self))
        if not self.threads:
            for pulled in self.take_all_back():
                self._refuse(pulled.call, pulled.attempt)

    def _refuse(self, call: Call, attempt: int) -> None:
        error = ThreadsExhaustedError(len(self._run.kernel.pool.abandoned))
        self._run.conclude(call, attempt, False, error, started=monotonic(), duration_s=0.0)

    def _lose(self, thread: WorkThread) -> None:
        self.threads.discard(thread)
        self._run.give_slot()


def close_awaitable(awaitable: Any) -> None:
    """Close a coroutine that will not be awaited any more, so that it does not warn."""
    if isinstance(awaitable, Coroutine):
        awaitable.close()
