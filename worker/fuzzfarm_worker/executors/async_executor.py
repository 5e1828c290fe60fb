"""AsyncExecutor: the shape of concurrent.futures for async functions, in one process."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fuzzfarm_shared.futures import AsyncFuture, ExecutorShutdownError, WaitStrategy, as_completed, wait
from fuzzfarm_shared.gates import Gates
from fuzzfarm_shared.ordered import OrderedResults
from fuzzfarm_worker.executors.first_steps import FirstSteps
from fuzzfarm_worker.executors.kernel import Kernel
from fuzzfarm_worker.executors.ordered import CallWindow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from types import TracebackType

    from fuzzfarm_worker.executors.calls import Call
    from fuzzfarm_worker.executors.run import Run

T = TypeVar("T")

MAX_WORKERS = 5
RETRY_DELAY_S = 0.1

# `map_iter` is this many items per worker ahead of its consumer, so that workers do not wait
# for it, and at least so many that waking the workers costs little per item.
PREFETCH_PER_WORKER = 4
MIN_PREFETCH = 64


class AsyncExecutor:
    """Runs functions, at most `max_workers` at once, and gives futures of their results.

    Functions may be coroutine functions, callables that return an awaitable, or sync functions,
    which run in daemon threads. Use it as `async with`, which waits for what was submitted;
    leaving it by an exception cancels what is queued. It needs no loop until the first submit.

    Args:
        max_workers: operations that run at once (ValueError below 1).
    """

    def __init__(self, max_workers: int = MAX_WORKERS) -> None:
        if max_workers < 1:
            raise ValueError("max_workers must be at least 1")
        self.max_workers = max_workers
        self._kernel = Kernel(max_workers)
        self._queue = _Queue()
        self._futures: set[AsyncFuture[Any]] = set()
        self._canceller, self._starter = self._cancel, self._start  # bound once, not for every future
        self._gates: Gates[Call] = Gates(self._enqueue, lambda call, error: self._finish(call[0], False, error))
        self._run: Run | None = None
        self._first_steps: FirstSteps | None = None
        self._owner: asyncio.Task[None] | None = None
        self._maps: set[Run] = set()
        self._is_shut_down = False
        self._no_futures: asyncio.Future[None] | None = None

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        retries: int = 0,
        retry_delay: float = RETRY_DELAY_S,
        semaphore: asyncio.Semaphore | None = None,
        **kwargs: Any,
    ) -> AsyncFuture[Any]:
        """Queue `fn(*args, **kwargs)` and return its future at once; call it within a running loop.

        After an error it is run again up to `retries` times, `retry_delay * 2**n` seconds apart
        (or a random quarter longer); the last error is raised with the earlier ones as notes.
        With a `semaphore` it waits for that first, holding no worker, and releases it at its
        end. Raises ExecutorShutdownError after shutdown.
        """
        if self._is_shut_down:
            self._refuse_after_shutdown()
        run = self._run
        if run is None or run.finished.done() or not run.is_here():
            run = self._open()
        future: AsyncFuture[Any] = AsyncFuture(self._canceller, self._starter)
        self._futures.add(future)
        # No empty dict: what a waiting call holds is what the garbage collector has to walk.
        call: Call = (future, fn, args, kwargs or None, None, retries, retry_delay)
        if semaphore is not None:
            self._gates.pass_through(semaphore, call)
        else:
            self._queue.calls.append(call)
            if run.exhausted:
                run.wake()
        return future

    async def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = RETRY_DELAY_S,
    ) -> list[Any]:
        """Run `fn` over the zipped iterables and return the results in input order.

        The first error cancels the rest and is raised. `timeout` is for each item, in seconds
        from its start (OperationTimeoutError, a TimeoutError). Cancelling cancels all of it.
        """
        self._refuse_after_shutdown()
        values: list[Any] = []
        calls = _calls(fn, iterables, (timeout, retries, retry_delay), values)
        failed: list[BaseException] = []

        def record(_index: int, _ok: bool, error: BaseException, *_: Any) -> None:
            if not failed:
                failed.append(error)
                run.stop()

        run = self._kernel.open(calls, record, values=values)
        self._maps.add(run)
        try:
            await run.completed()
        finally:
            self._maps.discard(run)
        if failed:
            raise failed[0]
        return values

    def map_iter(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = RETRY_DELAY_S,
        prefetch: int | None = None,
    ) -> AsyncIterator[Any]:
        """Like `map`, but iterate over the results while lazy input is pulled.

        At most `prefetch` items (four per worker, at least 64) are between being pulled and
        being consumed, so memory stays bounded. Nothing runs before the first step. Leaving the
        loop early cancels what is left; shutdown ends it with ExecutorShutdownError.
        """
        self._refuse_after_shutdown()
        window = max(MIN_PREFETCH, PREFETCH_PER_WORKER * self.max_workers) if prefetch is None else prefetch
        if window < 1:
            raise ValueError("prefetch must be at least 1")
        calls = _calls(fn, iterables, (timeout, retries, retry_delay))
        return OrderedResults(CallWindow(calls, window, self._open_map))

    def as_completed(
        self, futures: Iterable[AsyncFuture[T]], timeout: float | None = None
    ) -> AsyncIterator[AsyncFuture[T]]:
        """Iterate over futures as they are done; TimeoutError `timeout` seconds after the first step."""
        return as_completed(futures, timeout)

    async def wait(
        self,
        futures: Iterable[AsyncFuture[T]],
        timeout: float | None = None,
        return_when: WaitStrategy = WaitStrategy.ALL_COMPLETED,
    ) -> tuple[set[AsyncFuture[T]], set[AsyncFuture[T]]]:
        """Wait for futures; return the sets `(done, pending)`. See `fuzzfarm_shared.futures.wait`."""
        return await wait(futures, timeout, return_when)

    async def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        """Refuse new work, and wait for what was submitted.

        Args:
            wait: wait until everything submitted is done; without it, return at once, and what
                was submitted goes on by itself.
            cancel_futures: cancel what is queued and has not started.
        """
        self._is_shut_down = True
        if cancel_futures:
            self._cancel_queued()
        for run in tuple(self._maps):
            if run.lasting and not run.finished.done():
                run.fail(ExecutorShutdownError("the executor was shut down during map_iter"))
        if wait:
            await self._wait_for_futures()
            await self._close()
        elif not self._futures:
            self._stop_run()
        self._kernel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown(cancel_futures=exc is not None)

    def _open(self) -> Run:
        """Start the run that takes calls from the queue as long as this executor is open."""
        if self._run is not None:  # the loop it belonged to was closed under it
            self._lose_everything()
        run = self._kernel.open(self._queue, self._finish, lasting=True)
        completed = run.completed()
        try:
            self._owner = run.loop.create_task(completed)
        except BaseException:  # of a task factory
            completed.close()
            run.stop()
            self._kernel.forget(run)
            raise
        self._run, self._first_steps = run, FirstSteps(run)
        self._owner.add_done_callback(partial(self._owner_ended, run))
        return run

    def _owner_ended(self, run: Run, owner: asyncio.Task[None]) -> None:
        """Settle what is left, most likely because asyncio.run cancelled every task."""
        run.stop()
        self._kernel.forget(run)  # also if the owner was cancelled before its first step
        self._lose_everything()
        if not owner.cancelled() and (error := owner.exception()) is not None:
            run.loop.call_exception_handler({"message": "an executor's run failed", "exception": error})

    def _lose_everything(self) -> None:
        self._queue.clear()
        self._gates.clear()
        for future in tuple(self._futures):
            self._finish(future, False, asyncio.CancelledError())

    def _finish(
        self,
        future: AsyncFuture[Any],
        ok: bool,
        value: Any,
        _attempt: int = 1,
        _started: float = 0.0,
        _duration_s: float = 0.0,
    ) -> None:
        self._futures.discard(future)
        if ok:
            future.set_result(value)
        else:
            future.set_exception(value)
        if self._is_shut_down and not self._futures:
            self._stop_run()
            if self._no_futures is not None and not self._no_futures.done():
                self._no_futures.set_result(None)

    def _enqueue(self, call: Call) -> None:
        self._queue.calls.append(call)
        if self._run is not None and self._run.exhausted:
            self._run.wake()

    def _start(self) -> None:
        """Somebody waits: start what is queued, now."""
        if self._first_steps is not None:
            self._first_steps.take()

    def _cancel(self, future: AsyncFuture[Any]) -> bool:
        if self._gates.remove(future) or self._queue.remove(future):
            self._finish(future, False, asyncio.CancelledError())
            return True
        return self._run is not None and self._run.cancel(future)

    def _cancel_queued(self) -> None:
        for call in (*self._queue.clear(), *self._gates.clear()):
            self._finish(call[0], False, asyncio.CancelledError())
        if self._run is not None:
            self._run.cancel_waiting()

    async def _wait_for_futures(self) -> None:
        while self._futures:
            self._no_futures = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._no_futures])

    async def _close(self) -> None:
        self._stop_run()
        owner = self._owner
        if owner is not None and not owner.done() and owner.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([owner])
        await self._kernel.wait_idle()

    def _stop_run(self) -> None:
        if self._run is not None and not self._run.finished.done():
            self._run.finished.set_result(None)

    def _open_map(self, window: CallWindow) -> Run:
        self._refuse_after_shutdown()
        run = self._kernel.open(window, window.record, lasting=True)
        self._maps.add(run)
        run.finished.add_done_callback(lambda _: self._maps.discard(run))
        return run

    def _refuse_after_shutdown(self) -> None:
        if self._is_shut_down:
            raise ExecutorShutdownError("the executor has been shut down")


class _Queue:
    """Calls that wait for a worker: an iterator that ends when it is empty, and goes on later.

    A future keeps its starter as long as its call waits, so that one of many is cancelled without a search; its call
    stays behind, to be skipped.
    """

    def __init__(self) -> None:
        self.calls: deque[Call] = deque()
        self._skipped = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Call:
        calls = self.calls
        while calls:
            call = calls.popleft()
            if call[0].starter is not None:
                call[0].starter = None
                return call
            self._skipped -= 1
        raise StopIteration

    def remove(self, future: AsyncFuture[Any]) -> bool:
        """Take a call out; False if it is not queued."""
        if future.starter is None:
            return False
        future.starter = None
        self._skipped += 1
        if self._skipped > len(self.calls) // 2:  # what they hold is let go; at a constant cost for each
            self.calls = deque(self._waiting())
            self._skipped = 0
        return True

    def clear(self) -> list[Call]:
        """Take every call out."""
        calls = self._waiting()
        self.calls.clear()
        self._skipped = 0
        return calls

    def _waiting(self) -> list[Call]:
        return [call for call in self.calls if call[0].starter is not None]


def _calls(
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    limits: tuple[float | None, int, float],
    values: list[Any] | None = None,
) -> Iterator[Call]:
    """Calls over the zipped iterables; with `values`, a place in it for each."""
    timeout, retries, retry_delay = limits
    for index, args in enumerate(zip(*iterables, strict=False)):
        if values is not None:
            values.append(None)
        yield (index, fn, args, None, timeout, retries, retry_delay)
