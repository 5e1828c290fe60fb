"""Results in the order of the input, through a bounded window."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fuzzfarm_worker.executors.calls import Call
    from fuzzfarm_worker.executors.kernel import Kernel
    from fuzzfarm_worker.executors.run import Run

T = TypeVar("T")


class Window:
    """The part of a lazy input that is between being pulled and being handed out, in order.

    It is the iterator of calls of a lasting run: it ends where the window is full, and the run
    is woken when half of the window has been handed out.
    """

    def __init__(self, calls: Iterator[Call], size: int) -> None:
        self.run: Run | None = None
        self._calls = calls
        self._size = size
        self._pulled = 0
        self._handed_out = 0
        self._source_ended = False
        self._outcomes: dict[int, tuple[bool, Any]] = {}
        self._waiter: asyncio.Future[None] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Call:
        if self._pulled - self._handed_out >= self._size:
            raise StopIteration
        try:
            call = next(self._calls)
        except StopIteration:
            self._source_ended = True
            self._tell()
            raise
        self._pulled += 1
        return call

    def record(self, index: int, ok: bool, value: Any, *_: Any) -> None:
        """Keep an outcome until it is its turn."""
        self._outcomes[index] = (ok, value)
        if index == self._handed_out:
            self._tell()

    async def following(self) -> tuple[bool, Any] | None:
        """The next outcome in the order of the input, None after the last."""
        assert self.run is not None  # noqa: S101 - for the type checkers: set before the first step
        while (outcome := self._outcomes.pop(self._handed_out, None)) is None:
            if self.run.finished.done():
                self.run.finished.result()
                return None
            if self._source_ended and self._handed_out == self._pulled:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._handed_out += 1
        if self.run.exhausted and not self._source_ended and self._pulled - self._handed_out <= self._size // 2:
            self.run.wake()
        return outcome

    def ended(self, _run: asyncio.Future[None]) -> None:
        """The run is over: whoever waits has to see why."""
        self._tell()

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class OrderedResults(Generic[T]):
    """An async iterator over results in the order of the input; the first error ends it.

    Nothing runs before its first step. Leaving it early, by `break`, an error, `aclose()` or
    by dropping it, cancels what is left.
    """

    def __init__(self, kernel: Kernel, calls: Iterator[Call], window: int, started: Callable[[Run], None]) -> None:
        self._kernel = kernel
        self._window = Window(calls, window)
        self._started = started
        self._owner: asyncio.Task[None] | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        if self._owner is None:
            self._start()
        try:
            outcome = await self._window.following()
        except BaseException:
            await self.aclose()
            raise
        if outcome is not None and outcome[0]:
            value: T = outcome[1]
            return value
        await self.aclose()
        if outcome is None:
            raise StopAsyncIteration
        raise outcome[1]

    async def aclose(self) -> None:
        """Cancel what is left and wait until it is gone."""
        self._closed = True
        if self._owner is not None and self._window.run is not None:
            # The run and not its owner: a task cancelled before its first step runs no code.
            self._window.run.stop()
            await asyncio.wait([self._owner])

    def _start(self) -> None:
        # The run knows the window and not this iterator, so that dropping it ends the run.
        window = self._window
        run = window.run = self._kernel.open(window, window.record, lasting=True)
        run.finished.add_done_callback(window.ended)
        self._started(run)
        self._owner = run.loop.create_task(own(run))

    def __del__(self) -> None:
        run = self._window.run
        if run is not None and not run.loop.is_closed():
            run.stop()


async def own(run: Run) -> None:
    """Wait for a run; cancelled, it stops the run."""
    try:
        await run.completed()
    except Exception:  # noqa: BLE001 - whoever waits for results finds it in `finished`
        return
