"""First steps: whoever waits for a future runs the queued calls itself, as far as they go without suspending.

An operation that never suspends then costs no pass of the event loop, which takes longer than most such operations.
It is what eager tasks are from Python 3.12 on, but without a task for every operation.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.tasks import _enter_task, _leave_task
from time import monotonic
from types import CoroutineType, FunctionType
from typing import TYPE_CHECKING, Any

from fuzzfarm_worker.executors.calls import Pulled, runs_on_loop
from fuzzfarm_worker.executors.lane import Lane, State

if TYPE_CHECKING:
    from collections.abc import Generator

    from fuzzfarm_worker.executors.calls import Call
    from fuzzfarm_worker.executors.run import Run


class FirstSteps:
    """Starts the calls of one run within the step of a task that waits for one of them.

    They run in the name of a spare task: `current_task`, context variables and cancellation are the operation's, not
    those of whoever waits. The first one that suspends goes on in that task. All of it happens within the turn of the
    kernel, so that a loop of submits leaves time for other tasks.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._spare: SpareLane | None = None
        self._stepping = False
        run.finished.add_done_callback(self._close)

    def take(self) -> None:
        """Run what is queued until something suspends, the slots or the turn are used up; else leave it to lanes."""
        run = self._run
        waiter = asyncio.current_task(run.loop)
        # An error that the waiter handles would become the context of an operation's error.
        if waiter is None or self._stepping or run.stopped or run.ready or sys.exception() is not None:
            return
        spare = self._spare
        if spare is None or spare.ended:
            self._spare = SpareLane(run)
        elif spare.parked and (now := monotonic()) < run.kernel.turns.until and run.kernel.slots.take(run):
            self._stepping = True
            try:
                keeps_slot = self._take_in_slot(spare, waiter, now)
            finally:
                self._stepping = False
            if not keeps_slot:
                run.give_slot()

    def _close(self, _finished: asyncio.Future[None]) -> None:
        if self._spare is not None:
            self._spare.close()

    def _take_in_slot(self, spare: SpareLane, waiter: asyncio.Task[Any], now: float) -> bool:
        """Return whether an operation was begun that goes on in the slot."""
        run, until = self._run, self._run.kernel.turns.until
        while (call := run.pull()) is not None:
            if call[4] is not None or not runs_on_loop(call[1]):
                run.ready.append(Pulled(call, 1))
                run.arm_growth()
                return False
            ended = spare.begin(call, waiter, now)
            if ended is None:
                return True
            now = ended
            if spare.is_marked():
                spare.close()
                return False
            if run.ready or now >= until or run.must_yield() or run.stopped:
                return False
        return False


class SpareLane(Lane):
    """A task that waits for an operation which somebody began in its name."""

    __slots__ = ("_clean", "_context", "_parking", "_rest", "_task", "ended")

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.ended = False
        self.holds_slot = False
        self.idle = False
        self._rest: _Rest | None = None
        self._parking: asyncio.Future[None] | None = None
        self._context = run.context.copy()
        self._clean = run.context.copy()
        self.task = self._task = run.loop.create_task(self.work(), context=self._context)
        self._task.add_done_callback(self._ended)

    @property
    def parked(self) -> bool:
        """Whether its task waits for an operation."""
        return self._parking is not None and not self._parking.done()

    def is_marked(self) -> bool:
        """Whether an operation left something behind: a context variable, or a cancellation."""
        return self._context != self._clean or self._task.cancelling() > 0

    def begin(self, call: Call, waiter: asyncio.Task[Any], started: float) -> float | None:
        """Run an operation up to its first suspension.

        Returns when that was (time.monotonic); None when it has suspended, and goes on in the slot of the caller.
        """
        self.call, self.started = call, started
        try:
            coroutine = self._coroutine(call)
        except BaseException as exc:  # noqa: BLE001 - SystemExit and CancelledError are the operation's error too
            return self._fail(call, exc)
        if type(coroutine) is not CoroutineType:  # a lane waits for it; no step of it can be taken by hand
            self.run.ready.append(Pulled(call, 1, coroutine, started))
            self.run.arm_growth()
            return monotonic()
        try:
            suspended_on = self._step(coroutine, waiter)
        except StopIteration as returned:
            now = monotonic()
            self.run.record(call[0], True, returned.value, 1, started, now - started)
            self.call = None  # a task that waits keeps nothing alive
            return now
        except BaseException as exc:  # noqa: BLE001 - as above
            return self._fail(call, exc)
        self._go_on(_Rest(coroutine, suspended_on))
        return None

    def close(self) -> None:
        """End the task if it waits for an operation; one that it has goes on to its end."""
        self.ended = True
        if not self.holds_slot and not self._task.done():
            self.run.lanes.add(self)  # the run ends after it
            self._task.cancel()

    async def work(self) -> None:
        """Go on with what was begun, one operation after another."""
        while not self.ended:
            self._parking = self.run.loop.create_future()
            error: BaseException | None = None
            try:
                await self._parking
            except asyncio.CancelledError as exc:
                if self._rest is None:
                    raise
                error = exc  # meant for the operation
            rest, self._rest = self._rest, None
            if rest is None or not await self._finish(rest, error):
                return

    async def _finish(self, rest: _Rest, error: BaseException | None) -> bool:
        """Run an operation to its end; False when the task has to end, too."""
        call = self.call
        assert call is not None  # noqa: S101 - for the type checkers: set with the rest
        rest.error = error
        ok, value = True, None
        try:
            value = await rest
        except GeneratorExit as exc:
            if asyncio.current_task(self.run.loop) is not self._task:
                raise  # the loop is gone and this coroutine is being closed
            ok, value = False, exc
        except BaseException as exc:  # noqa: BLE001 - SystemExit and CancelledError are the operation's error too
            ok, value = False, exc
        self._conclude(call, ok, value, monotonic())
        if self.state is not State.WORKING or self.is_marked():
            return False
        self.run.lanes.discard(self)
        self.holds_slot = False
        self.call = None
        self.run.give_slot()
        self.run.settle()
        return True

    def _fail(self, call: Call, error: BaseException) -> float:
        now = monotonic()
        self._conclude(call, False, error, now)
        self.call = None
        return now

    def _conclude(self, call: Call, ok: bool, value: Any, now: float) -> bool:
        if not ok and value.__traceback__ is not None:  # two of its frames are ours
            value.__traceback__ = value.__traceback__.tb_next
        return super()._conclude(call, ok, value, now)

    def _coroutine(self, call: Call) -> Any:
        _, fn, args, kwargs, *_ = call
        if type(fn) is FunctionType:  # makes a coroutine and runs nothing
            return fn(*args, **kwargs) if kwargs else fn(*args)
        return self._context.run(fn, *args, **kwargs or {})

    def _step(self, coroutine: Any, waiter: asyncio.Task[Any]) -> Any:
        loop = self.run.loop
        _leave_task(loop, waiter)
        _enter_task(loop, self._task)
        try:
            return self._context.run(coroutine.send, None)
        finally:
            _leave_task(loop, self._task)
            _enter_task(loop, waiter)

    def _go_on(self, rest: _Rest) -> None:
        self._rest = rest
        self.holds_slot = True
        self.run.lanes.add(self)
        if self._parking is not None:
            self._parking.set_result(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.ended = True
        if self in self.run.lanes:
            self.run.lane_ended(self, task)


class _Rest:
    """An awaitable: the rest of a coroutine that has suspended on `suspended_on`, or gets `error` thrown there."""

    __slots__ = ("_coroutine", "_suspended_on", "error")

    def __init__(self, coroutine: Any, suspended_on: Any) -> None:
        self.error: BaseException | None = None
        self._coroutine = coroutine
        self._suspended_on = suspended_on

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, suspended_on, error = self._coroutine, self._suspended_on, self.error
        try:
            while True:
                if error is not None:
                    suspended_on = coroutine.throw(error)
                try:
                    error, sent = None, (yield suspended_on)
                except BaseException as exc:  # noqa: BLE001 - as `yield from` does
                    error = exc
                else:
                    suspended_on = coroutine.send(sent)
        except StopIteration as exc:
            return exc.value
