"""A lane: one task that runs async operations one after another, in one slot."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from enum import Enum
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from fuzzfarm_worker.executors.calls import runs_on_loop
from fuzzfarm_worker.executors.errors import OperationTimeoutError

if TYPE_CHECKING:
    from fuzzfarm_worker.executors.calls import Call
    from fuzzfarm_worker.executors.run import Run

# How long a cancelled operation may take to clean up. It has to be well below the 5 s that a
# worker adds to the timeout of an operation before it takes the whole process for hung.
CANCEL_GRACE_S = 2.0


class State(Enum):
    """What was decided about a lane from outside."""

    WORKING = "working"
    EXPIRED = "expired"
    STOPPED = "stopped"
    ABANDONED = "abandoned"


class Lane:
    """Runs operations in its own task: no task, no timer and no future per operation.

    Its task is replaced when an operation left traces in it: a changed context variable, or a
    cancellation that nobody caught.
    """

    __slots__ = ("attempt", "call", "deadline", "holds_slot", "idle", "run", "started", "state", "task")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.state = State.WORKING
        self.idle = True
        self.holds_slot = True
        self.deadline = inf
        self.task: asyncio.Task[None] | None = None
        self.call: Call | None = None
        self.attempt = 1
        self.started = 0.0

    async def work(self) -> None:  # noqa: C901, PLR0912, PLR0915 - one loop; a call per step would cost more than the operation
        """Run operations until there is none, or the slot goes to another run."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checkers: a coroutine runs in a task
        run, cancelling, record = self.run, task.cancelling, self.run.record
        values = run.values
        turns, alarm, ready, calls = run.kernel.turns, run.kernel.alarm, run.ready, run.calls
        context = copy_context()
        now = await self._resume()
        async_fn: object = None
        while True:
            awaitable: Any = None
            if ready:
                call, attempt, awaitable, started = ready.popleft()
            else:
                following = next(calls, None)
                if following is None:
                    run.exhausted = True
                    return
                call, attempt, started = following, 1, 0.0
            index, fn, args, kwargs, timeout_s, _, _ = call
            if fn is not async_fn and awaitable is None:
                if not runs_on_loop(fn):
                    if not self._hand_over(call, attempt) or not await self._look_up(monotonic()):
                        return
                    continue
                async_fn = fn
            self.call = call
            self.attempt = attempt
            if awaitable is None:
                # In a batch at hand the end of the last operation is the start of this one:
                # reading the clock costs a tenth of an operation.
                started = now if values is not None else monotonic()
            self.started = started
            if timeout_s is None:
                self.deadline = inf
            else:
                self.deadline = deadline = started + timeout_s
                if deadline < alarm.at:
                    alarm.set(deadline)
            ok = True
            value: Any
            try:
                if awaitable is not None:
                    value = await awaitable
                else:
                    value = await (fn(*args, **kwargs) if kwargs else fn(*args))
            except GeneratorExit as exc:
                if asyncio.current_task(run.loop) is not task:
                    raise  # the loop is gone and this coroutine is being closed
                ok, value = False, exc
            except BaseException as exc:  # noqa: BLE001 - SystemExit and CancelledError are the operation's error too
                ok, value = False, exc
            now = monotonic()
            if not ok or cancelling():
                if not self._conclude(call, ok, value, now) or cancelling():
                    return
            elif values is not None:
                values[index] = value
            else:
                record(index, True, value, attempt, started, now - started)
            value = None  # a lane that waits keeps no result alive
            # Comparing contexts is cheap while nothing changed: both hold the same map.
            if copy_context() != context:
                return
            if now >= turns.until:
                if not await self._look_up(now):
                    return
                now = monotonic()

    async def _look_up(self, now: float) -> bool:
        """Between two operations: give up the slot (False) or the turn, when it is time."""
        if self.run.must_yield():
            return False
        if now < self.run.kernel.turns.until:
            return True
        self.deadline = inf
        self.idle = True
        self.run.idle += 1
        await self._resume()
        return True

    async def _resume(self) -> float:
        now = monotonic()
        if now >= (turns := self.run.kernel.turns).until:
            await turns.next()
            now = monotonic()
        self.idle = False
        self.run.idle -= 1
        self.run.arm_growth()
        return now

    def _hand_over(self, call: Call, attempt: int) -> bool:
        """Give a sync operation to the crew; False when this lane has to end."""
        crew = self.run.crew
        if crew.accept(call, attempt):
            self.holds_slot = False
            return False
        return not (crew.threads and crew.full)

    def _conclude(self, call: Call, ok: bool, value: Any, now: float) -> bool:
        """Settle an operation that failed or was cancelled; False when the lane has to end."""
        if self.state in {State.STOPPED, State.ABANDONED}:
            return False
        if not ok:
            # Without our own frame, which would keep the lane's next operations alive.
            value.__traceback__ = value.__traceback__ and value.__traceback__.tb_next
        if self.state is State.EXPIRED:
            self.state = State.WORKING
            if self.task is not None:
                self.task.uncancel()
            ok, value = False, _timeout_error(call, value)
        self.run.conclude(call, self.attempt, ok, value, started=self.started, duration_s=now - self.started)
        return not self.run.backed_up

    def expire(self, now: float) -> float:
        """Cancel the operation if its deadline has passed; return the lane's next deadline."""
        if self.deadline > now or self.task is None or self.call is None:
            return self.deadline
        if self.state is State.STOPPED:
            return inf
        self.task.cancel()
        if self.state is State.WORKING:
            self.state = State.EXPIRED
            self.deadline = now + CANCEL_GRACE_S
            return self.deadline
        self.run.abandon(self)
        error = _timeout_error(self.call, None)
        self.run.conclude(self.call, self.attempt, False, error, started=self.started, duration_s=now - self.started)
        return inf

    def cancel(self) -> bool:
        """Cancel the operation that runs, for its own sake."""
        return self.task is not None and self.task.cancel()

    def stop(self) -> None:
        """Cancel the lane with its operation; nothing of it is recorded any more."""
        self.state = State.STOPPED
        if self.task is not None:
            self.task.cancel()


def _timeout_error(call: Call, ended_with: Any) -> OperationTimeoutError:
    error = OperationTimeoutError(call[4] or 0.0)
    if isinstance(ended_with, Exception):
        error.__cause__ = ended_with
    return error
