"""The window of `AsyncExecutor.map_iter`: what is between being pulled and being handed out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from fuzzfarm_shared.ordered import surfaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fuzzfarm_worker.executors.calls import Call
    from fuzzfarm_worker.executors.run import Run


class CallWindow:
    """A window over calls; see `fuzzfarm_shared.ordered.Window`.

    It is the iterator of calls of a lasting run: it ends where the window is full, and the run
    is woken when half of the window has been handed out.

    Args:
        calls: pulled lazily.
        size: most calls between being pulled and being handed out.
        open_run: opens the run of this window.
    """

    def __init__(self, calls: Iterator[Call], size: int, open_run: Callable[[CallWindow], Run]) -> None:
        self._run: Run | None = None
        self._open_run = open_run
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

    def start(self) -> asyncio.Task[None]:
        """Open the run."""
        run = self._run = self._open_run(self)
        run.finished.add_done_callback(lambda _: self._tell())  # whoever waits has to see why
        return run.loop.create_task(own(run))

    async def following(self) -> Any:
        """The next value in the order of the input, or its error; StopAsyncIteration after the last."""
        run = self._run
        assert run is not None  # noqa: S101 - for the type checkers: started before the first step
        while (outcome := self._outcomes.pop(self._handed_out, None)) is None:
            if run.finished.done():
                error = run.finished.exception()
                raise StopAsyncIteration if error is None else surfaced(error)
            if self._source_ended and self._handed_out == self._pulled:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._handed_out += 1
        if run.exhausted and not self._source_ended and self._pulled - self._handed_out <= self._size // 2:
            run.wake()
        ok, value = outcome
        if not ok:
            raise surfaced(value)
        return value

    def stop(self) -> None:
        """Cancel what is left: the run and not its task, which runs no code when cancelled before its first step."""
        if self._run is not None:
            self._run.stop()

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def own(run: Run) -> None:
    """Wait for a run; cancelled, it stops the run."""
    try:
        await run.completed()
    except Exception:  # noqa: BLE001 - whoever waits for results finds it in `finished`
        return
