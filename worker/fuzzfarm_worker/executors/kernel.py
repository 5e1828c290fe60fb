"""The concurrency kernel: slots, deadlines, retries and fairness under every executor.

    Kernel  owns the slots, the alarm, the turns and the threads; outlives runs and event loops
      Run     one iterator of calls on its way to one record function
        Lane    a task that runs async operations one after another, in one slot
        Crew    threads that run the sync operations of the run, each in one slot

No operation costs a task, a timer or a future of its own: lanes take calls from a shared
iterator, one alarm sweeps all deadlines, and threads drain a shared queue.
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from fuzzfarm_worker.executors.alarm import Alarm
from fuzzfarm_worker.executors.calls import Call, Record
from fuzzfarm_worker.executors.run import Run
from fuzzfarm_worker.executors.slots import Slots
from fuzzfarm_worker.executors.threads import ThreadPool
from fuzzfarm_worker.executors.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Call", "Kernel", "KernelStats", "Record"]


@dataclass(frozen=True, slots=True)
class KernelStats:
    """What a kernel does now, and what it had to leave behind."""

    running: int
    """Operations that run now."""
    free_slots: int
    """Slots that nobody holds."""
    abandoned_threads: int
    """Threads that still hang in sync operations that timed out or were cancelled."""
    abandoned_threads_total: int
    """The same, counting those that have returned since."""
    abandoned_tasks: int
    """Tasks of async operations that still ignore their cancellation."""


class Kernel:
    """Runs operations, at most `max_concurrency` at once, for any number of runs together.

    It may be used from one event loop after another, but not from two at the same time.
    """

    def __init__(self, max_concurrency: int) -> None:
        """Make a kernel with `max_concurrency` slots (ValueError below 1)."""
        if max_concurrency < 1:
            raise ValueError("max_concurrency must be at least 1")
        self.max_concurrency = max_concurrency
        self.pool = ThreadPool()
        self.slots = Slots(max_concurrency)
        self.turns: Turns
        self.alarm: Alarm
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runs: set[Run] = set()
        self._abandoned_tasks: set[asyncio.Task[None]] = set()
        self._idle_watchers: list[asyncio.Future[None]] = []
        weakref.finalize(self, self.pool.close)

    async def run(
        self,
        calls: Iterator[Call],
        record: Record,
        *,
        values: list[Any] | None = None,
    ) -> None:
        """Run every call of a lazy, possibly endless iterator, and record each outcome once.

        A call is pulled when it can start; of sync functions that turned out short up to about
        5 ms of work are pulled ahead (`Run.take_back`). `record(index, ok, value_or_exception, attempt,
        started_monotonic, duration_s)` is called on the loop's thread, once per call, for its
        last attempt; it and the iterator should be quick, and an error of either ends the run
        and is raised.

        An async function runs on the loop, any other in a daemon thread; an awaitable that the
        latter returns is awaited on the loop. An operation that passes its `timeout_s`, counted
        from its start, is recorded with an `OperationTimeoutError`, also when it swallows its
        cancellation; a sync one leaves its thread behind. What an operation raises is its own
        error, be it CancelledError, SystemExit or KeyboardInterrupt; only an `Exception` is
        retried.

        Cancellation cancels the running coroutines and waits for them (at most 2 s each),
        leaves running threads behind, and records nothing more.

        With `values`, an operation that succeeds is not recorded, but its value stored there by
        its index.
        """
        await self.open(calls, record, values=values).completed()

    def open(
        self,
        calls: Iterator[Call],
        record: Record,
        *,
        lasting: bool = False,
        values: list[Any] | None = None,
    ) -> Run:
        """Start a run; the caller has to await its `completed()`."""
        self._adopt(asyncio.get_running_loop())
        run = Run(self, calls, record, lasting=lasting, values=values)
        self._runs.add(run)
        run.grow()
        run.settle()
        if run.queued:
            self.turns.until = 0.0  # ask running lanes to look up after their operation
        return run

    @property
    def free_slots(self) -> int:
        """How many slots nobody holds."""
        return self.slots.free

    @property
    def running(self) -> int:
        """How many operations run now."""
        return sum(run.running for run in self._runs)

    async def wait_free(self) -> None:
        """Return once a slot is free that no run of this kernel is waiting for."""
        self._adopt(asyncio.get_running_loop())
        await self.slots.wait_free(asyncio.get_running_loop())

    async def wait_idle(self) -> None:
        """Return once no run is open."""
        self._adopt(asyncio.get_running_loop())
        while self._runs:
            watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle_watchers.append(watcher)
            await watcher

    def stats(self) -> KernelStats:
        """What the kernel does now, and what it had to leave behind."""
        return KernelStats(
            running=self.running,
            free_slots=self.free_slots,
            abandoned_threads=len(self.pool.abandoned),
            abandoned_threads_total=self.pool.abandoned_total,
            abandoned_tasks=len(self._abandoned_tasks),
        )

    def close(self) -> None:
        """End idle threads; those of running operations end with them."""
        self.pool.close()

    def stop_all(self) -> None:
        """Stop every run; each `completed()` returns when its operations are gone."""
        for run in tuple(self._runs):
            run.fail(asyncio.CancelledError())

    def forget(self, run: Run) -> None:
        """A run is over, and nothing of it is left."""
        self._runs.discard(run)
        if not self._runs and run.loop is self._loop:
            self.alarm.clear()
            for watcher in self._idle_watchers:
                if not watcher.done():
                    watcher.set_result(None)
            self._idle_watchers.clear()

    def keep_abandoned(self, task: asyncio.Task[None]) -> None:
        """Hold a task that ignores its cancellation until it ends: the loop itself would not."""
        self._abandoned_tasks.add(task)
        task.add_done_callback(self._abandoned_tasks.discard)

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is self._loop:
            return
        if self._runs and self._loop is not None and not self._loop.is_closed():
            raise RuntimeError("this executor is in use on another event loop")
        for run in tuple(self._runs):  # its loop was closed under it
            run.crew.stop()
        self._runs.clear()
        self._abandoned_tasks.clear()
        self._loop = loop
        self.slots = Slots(self.max_concurrency)
        self.turns = Turns(loop)
        self.alarm = Alarm(loop, self._sweep)

    def _sweep(self, now: float) -> float:
        return min((run.expire(now) for run in tuple(self._runs)), default=inf)
