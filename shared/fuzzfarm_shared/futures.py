"""Futures of operations, and waiting for many of them; the same for one process and for a farm.

Everything here belongs to the thread of one event loop. A future needs no loop until somebody
waits for it, so that it can be made, settled and asked anywhere in that thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ExecutorShutdownError(RuntimeError):
    """Something was submitted to an executor that has been shut down."""


class WaitStrategy(Enum):
    """When `wait` returns."""

    FIRST_COMPLETED = "FIRST_COMPLETED"
    FIRST_EXCEPTION = "FIRST_EXCEPTION"
    ALL_COMPLETED = "ALL_COMPLETED"


class _State(Enum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Looked up once per future and not by way of the enumeration, which costs three times as much.
_PENDING = _State.PENDING
_SUCCEEDED = _State.SUCCEEDED
_FAILED = _State.FAILED


class _Unretrieved:
    """Logs the error of a future when both are dropped and nobody has retrieved it.

    An object of its own, because a finalizer of every future would cost a tenth of a short operation.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error

    def __del__(self) -> None:
        if self.error is not None:
            logger.error("the error of an operation was never retrieved", exc_info=self.error)


class AsyncFuture(Generic[T]):
    """The future outcome of one submitted operation.

    `await future` is `await future.result()`. Cancelling whoever waits leaves the operation
    running; `cancel()` cancels the operation. An error that nobody retrieves by `result()`,
    `await` or `exception()` is logged once, when the future is dropped.

    Executors make futures and settle them by `set_result`, `set_exception`, `set_cancelled`.

    Args:
        canceller: asked by `cancel()` to stop the operation; it returns whether it will.
        starter: called when somebody starts to wait; it may settle the future there and then. An executor takes it
            away when the operation has started.
    """

    __slots__ = ("__weakref__", "_callbacks", "_canceller", "_state", "_unretrieved", "_value", "starter")

    # Of a settled future only.
    _value: Any
    _unretrieved: _Unretrieved | None

    def __init__(
        self,
        canceller: Callable[[AsyncFuture[Any]], bool] | None = None,
        starter: Callable[[], None] | None = None,
    ) -> None:
        self._state = _PENDING
        self._callbacks: list[Callable[[AsyncFuture[T]], object]] | None = None
        self._canceller = canceller
        self.starter = starter

    def done(self) -> bool:
        """Whether there is an outcome, or the future was cancelled."""
        return self._state is not _PENDING

    def cancelled(self) -> bool:
        """Whether the future was cancelled."""
        return self._state is _State.CANCELLED

    def exception(self) -> BaseException | None:
        """The error of the operation; None while it is pending or when it succeeded.

        A cancelled future answers with a CancelledError; nothing is raised here.
        """
        if self._state is _PENDING or self._state is _SUCCEEDED:
            return None
        if self._unretrieved is not None:
            self._unretrieved.error = None
        error: BaseException = self._value
        return error

    def failed(self) -> bool:
        """Whether the operation raised an error; this does not count as retrieving it."""
        return self._state is _FAILED

    async def result(self, timeout: float | None = None) -> T:
        """Wait for the outcome: return the value, or raise the error of the operation.

        After `timeout` seconds it raises TimeoutError and leaves the operation running: wait
        again, or `cancel()` it. Raises CancelledError if the future was cancelled.
        """
        if self._state is _PENDING and self.starter is not None:
            self.starter()
        if self._state is _PENDING:
            if timeout is None:
                return await self
            done, _ = await wait([self], timeout, WaitStrategy.FIRST_COMPLETED)
            if not done:
                raise TimeoutError(f"no result within {timeout:g} s; the operation is still running")
        return self._outcome()

    def __await__(self) -> Generator[Any, None, T]:
        if self._state is _PENDING and self.starter is not None:
            self.starter()
        if self._state is _PENDING:
            waiter = asyncio.get_running_loop().create_future()
            callback = _setter(waiter)
            self.add_done_callback(callback)
            try:
                yield from waiter
            finally:
                self.remove_done_callback(callback)
        return self._outcome()

    def cancel(self) -> bool:
        """Ask for the operation to be cancelled; False when it is too late for that.

        A queued operation is cancelled at once. One that runs gets a CancelledError at its
        next suspension, and the future is settled when it has ended; a sync operation that
        runs in a thread cannot be cancelled.
        """
        if self._state is not _PENDING:
            return False
        return self._canceller is not None and self._canceller(self)

    def add_done_callback(self, fn: Callable[[AsyncFuture[T]], object]) -> None:
        """Call `fn(future)` as soon as the future is done, at once if it is; errors are logged."""
        if self._state is not _PENDING:
            self._call(fn)
        elif self._callbacks is None:
            self._callbacks = [fn]
        else:
            self._callbacks.append(fn)

    def remove_done_callback(self, fn: Callable[[AsyncFuture[T]], object]) -> int:
        """Forget a callback; return how often it had been added."""
        if not self._callbacks:
            return 0
        kept = [callback for callback in self._callbacks if callback is not fn]
        removed = len(self._callbacks) - len(kept)
        self._callbacks = kept
        return removed

    def set_result(self, value: T) -> None:
        """Settle the future with the operation's value; ignored when it is already done."""
        if self._callbacks is None and self._state is _PENDING:  # most futures, so without a further call
            self._state, self._value, self._canceller = _SUCCEEDED, value, None
            return
        self._settle(_SUCCEEDED, value)

    def set_exception(self, error: BaseException) -> None:
        """Settle the future with the operation's error, or as cancelled by a CancelledError."""
        self._settle(_State.CANCELLED if isinstance(error, asyncio.CancelledError) else _FAILED, error)

    def set_cancelled(self) -> None:
        """Settle the future as cancelled."""
        self._settle(_State.CANCELLED, asyncio.CancelledError())

    def __repr__(self) -> str:
        return f"<AsyncFuture {self._state.value}>"

    def _settle(self, state: _State, value: Any) -> None:
        if self._state is not _PENDING:
            return
        self._state = state
        self._value = value
        self._unretrieved = _Unretrieved(value) if state is _FAILED else None
        self._canceller = self.starter = None
        if self._callbacks is not None:
            callbacks, self._callbacks = self._callbacks, None
            for callback in callbacks:
                self._call(callback)

    def _call(self, fn: Callable[[AsyncFuture[T]], object]) -> None:
        try:
            fn(self)
        except Exception:
            # The others still have to hear of it, and the executor has to go on.
            logger.exception("a done callback of an operation failed")

    def _outcome(self) -> T:
        if self._state is _SUCCEEDED:
            value: T = self._value
            return value
        if self._unretrieved is not None:
            self._unretrieved.error = None
        try:
            raise self._value
        finally:
            del self  # the traceback holds this frame, which must not hold the error


def _setter(waiter: asyncio.Future[None]) -> Callable[[AsyncFuture[Any]], None]:
    def set_waiter(_future: AsyncFuture[Any]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    return set_waiter


class _Countdown:
    """Wakes one waiter when enough of the futures it is a callback of are done."""

    def __init__(self, left: int, strategy: WaitStrategy) -> None:
        self.waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = left
        self._on_error = strategy is WaitStrategy.FIRST_EXCEPTION

    def __call__(self, future: AsyncFuture[Any]) -> None:
        self._left -= 1
        if (self._left <= 0 or (self._on_error and future.failed())) and not self.waiter.done():
            self.waiter.set_result(None)


async def wait(
    futures: Iterable[AsyncFuture[T]],
    timeout: float | None = None,
    return_when: WaitStrategy = WaitStrategy.ALL_COMPLETED,
) -> tuple[set[AsyncFuture[T]], set[AsyncFuture[T]]]:
    """Wait for futures, at a constant cost for each; return the sets `(done, pending)`.

    After `timeout` seconds it raises TimeoutError for ALL_COMPLETED and returns what is done
    otherwise; either way, and when cancelled, the operations go on.
    """
    every = set(futures)
    pending = [future for future in every if not future.done()]
    enough = 1 if return_when is WaitStrategy.FIRST_COMPLETED else len(every)
    failed = return_when is WaitStrategy.FIRST_EXCEPTION and any(future.failed() for future in every)
    if pending and not failed and len(every) - len(pending) < enough:
        await _count_down(pending, enough - (len(every) - len(pending)), timeout, return_when)
    done = {future for future in every if future.done()}
    if return_when is WaitStrategy.ALL_COMPLETED and len(done) < len(every):
        raise TimeoutError(f"{len(every) - len(done)} of {len(every)} operations are still running")
    return done, every - done


async def _count_down(
    pending: list[AsyncFuture[Any]], enough: int, timeout: float | None, strategy: WaitStrategy
) -> None:
    countdown = _Countdown(enough, strategy)
    for future in pending:
        future.add_done_callback(countdown)
    try:
        await asyncio.wait([countdown.waiter], timeout=timeout)
    finally:
        for future in pending:
            future.remove_done_callback(countdown)


class _Arrivals:
    """Collects futures as they are done, and wakes one waiter."""

    def __init__(self) -> None:
        self.done: deque[AsyncFuture[Any]] = deque()
        self.waiter: asyncio.Future[None] | None = None

    def __call__(self, future: AsyncFuture[Any]) -> None:
        self.done.append(future)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class as_completed(Generic[T]):  # noqa: N801 - used like the function of this name in concurrent.futures
    """Iterate over futures as they are done, at a constant cost for each.

    Each future comes once. `timeout` seconds after the first step it raises TimeoutError.
    Leaving the loop early leaves the operations running.
    """

    def __init__(self, futures: Iterable[AsyncFuture[T]], timeout: float | None = None) -> None:
        self._futures = set(futures)
        self._left = len(self._futures)
        self._timeout = timeout
        self._deadline: float | None = None
        self._arrivals = _Arrivals()
        for future in self._futures:
            future.add_done_callback(self._arrivals)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncFuture[T]:
        if not self._left:
            raise StopAsyncIteration
        if not self._arrivals.done:
            await self._wait()
        self._left -= 1
        future = self._arrivals.done.popleft()
        self._futures.discard(future)
        return future

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        if self._deadline is None and self._timeout is not None:
            self._deadline = loop.time() + self._timeout
        left_s = None if self._deadline is None else max(0.0, self._deadline - loop.time())
        self._arrivals.waiter = loop.create_future()
        await asyncio.wait([self._arrivals.waiter], timeout=left_s)
        if not self._arrivals.done:
            raise TimeoutError(f"{self._left} operations are still running")

    def __del__(self) -> None:
        for future in self._futures:
            future.remove_done_callback(self._arrivals)
