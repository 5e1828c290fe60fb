"""FarmExecutor: the shape of concurrent.futures over the whole farm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from fuzzfarm.calls import Target, call_template, travelled
from fuzzfarm.delivery import exception_of, positions
from fuzzfarm.farm import Farm
from fuzzfarm.feed import Feed
from fuzzfarm.flow import Flow
from fuzzfarm.gathering import CallQueue, Gathering, QueuedCall
from fuzzfarm.ordered import CallWindow
from fuzzfarm_shared.futures import AsyncFuture, ExecutorShutdownError, WaitStrategy, as_completed, wait
from fuzzfarm_shared.gates import Gates
from fuzzfarm_shared.operations import CallGroup
from fuzzfarm_shared.ordered import OrderedResults, surfaced
from fuzzfarm_shared.schedule import Priority, Schedule
from fuzzfarm_shared.segments import Segment

T = TypeVar("T")

RETRY_DELAY_S = 0.1

PREFETCH = 20_000
"""Calls that `map_iter` is ahead of its consumer: about 100 ms of work for two workers that do nothing else."""


class FarmExecutor:
    """Runs functions on the workers of a farm, and gives futures of their results.

    A function is sent by its import name, and workers must be able to import it. Use it as `async with`, which waits
    for what was submitted; leaving it by an exception cancels that on the farm. Leaving the farm cancels what is left.

    Args:
        farm: a farm that is entered before the first call.
        priority: of all its calls, as for `Farm.submit`.
    """

    def __init__(self, farm: Farm, priority: Priority | str = Priority.NORMAL) -> None:
        self._farm = farm
        self._schedule = Schedule.of(priority, None)
        self._queue = CallQueue()
        self._gates: Gates[QueuedCall] = Gates(self._passed, lambda call, error: call[0].set_exception(error))
        self._canceller = self._cancel  # bound once, not for every future
        self._gathering: Gathering | None = None
        self._gatherings: dict[asyncio.Task[None], Gathering] = {}
        self._windows: dict[asyncio.Task[None], CallWindow] = {}
        self._owners: set[asyncio.Task[None]] = set()
        self._is_shut_down = False

    def submit(
        self,
        fn: Target,
        *args: Any,
        retries: int = 0,
        retry_delay: float = RETRY_DELAY_S,
        semaphore: asyncio.Semaphore | None = None,
        **kwargs: Any,
    ) -> AsyncFuture[Any]:
        """Queue `fn(*args, **kwargs)` and return its future at once; call it within a running loop.

        Calls are gathered for about 2 ms and sent together. After an error a call is run again up to `retries` times,
        `retry_delay * 2**n` seconds apart (or a random quarter longer). With a `semaphore` it waits for that before it
        is sent, and releases it when the future is done. There is no time limit. Arguments are copied at once.

        `cancel()` of its future takes back a call that is not sent; of one that is, the outcome is dropped.

        Raises:
            TargetError: for a function that cannot be imported by name.
            UnsupportedValueError: for an argument that cannot travel.
            PayloadTooLargeError: for arguments that are too large.
            ExecutorShutdownError: after shutdown.
        """
        self._refuse_after_shutdown()
        template = call_template(fn, None, retries, retry_delay)
        copies = travelled(template.target, args, kwargs, self._farm.settings.max_payload_bytes)
        future: AsyncFuture[Any] = AsyncFuture(self._canceller)
        call: QueuedCall = (future, template, *copies)
        if semaphore is not None:
            self._gates.pass_through(semaphore, call)
        else:
            self._enqueue(call)
        return future

    async def map(
        self,
        fn: Target,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = RETRY_DELAY_S,
    ) -> list[Any]:
        """Run `fn` over the zipped iterables and return the results in input order.

        The first error cancels the rest on the farm and is raised. `timeout` is for each item, in seconds from its
        start (RemoteTimeoutError, a TimeoutError). Cancelling cancels all of it.

        Raises:
            RemoteError: for an item that failed.
            FarmUnreachableError: when the server stays away.
            TargetError, UnsupportedValueError, PayloadTooLargeError, ExecutorShutdownError: as `submit`.
        """
        self._refuse_after_shutdown()
        values: list[Any] = []

        def deliver(segment: Segment) -> None:
            if segment.errors:
                raise exception_of(segment.errors[min(segment.errors)])
            _place(segment, values)

        calls = CallGroup(call_template(fn, timeout, retries, retry_delay), zip(*iterables, strict=False), star=True)
        await self._own(Flow(self._farm, Feed(calls), deliver, self._schedule).run())
        return values

    def map_iter(
        self,
        fn: Target,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = RETRY_DELAY_S,
        prefetch: int | None = None,
    ) -> AsyncIterator[Any]:
        """Like `map`, but iterate over the results while lazy input is read.

        At most `prefetch` items (20,000) are between being read and being consumed, so memory stays bounded. Nothing
        is sent before the first step. Leaving the loop early cancels what is left on the farm; shutdown ends it with
        ExecutorShutdownError.
        """
        self._refuse_after_shutdown()
        size = PREFETCH if prefetch is None else prefetch
        if size < 1:
            raise ValueError("prefetch must be at least 1")
        template = call_template(fn, timeout, retries, retry_delay)
        calls = CallGroup(template, zip(*iterables, strict=False), star=True)
        return OrderedResults(CallWindow(calls, size, self._iterate))

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
            wait: wait until everything submitted is done or cancelled; without it, return at once, and what was
                submitted goes on as long as the farm is open. Either way calls that were cancelled are cancelled on the
                farm, too, when no other call of their batch is awaited.
            cancel_futures: cancel every future that is not done, also of calls that run on the farm.
        """
        self._is_shut_down = True
        if cancel_futures:
            self._cancel_submitted()
        for owner, window in self._windows.items():
            window.finish(ExecutorShutdownError("the executor was shut down during map_iter"))
            _cancel_once(owner)
        self._wind_up()
        while wait and (self._owners or not self._gates.empty):
            # Not all of them: a keeper whose calls were cancelled may wait for its semaphore for ever.
            await asyncio.wait([*self._owners, *self._gates.keepers], return_when=asyncio.FIRST_COMPLETED)
            self._wind_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown(cancel_futures=exc is not None)

    def _enqueue(self, call: QueuedCall) -> None:
        if self._gathering is None or self._gathering.ended:
            self._open()
        self._queue.append(call)

    def _passed(self, call: QueuedCall) -> None:
        self._enqueue(call)
        self._wind_up()

    def _open(self) -> None:
        """Start the batch that takes calls from the queue."""
        gathering = Gathering(self._queue, self._go_on)
        flow = Flow(self._farm, gathering, partial(self._deliver, gathering), self._schedule)
        owner = self._own(self._gather(gathering, flow))
        self._gathering = gathering
        self._gatherings[owner] = gathering
        owner.add_done_callback(self._gathered)

    def _go_on(self) -> None:
        """Open another batch, if calls are waiting behind one that has ended."""
        if self._queue:
            self._open()

    def _deliver(self, gathering: Gathering, segment: Segment) -> None:
        gathering.deliver(segment)
        self._wind_up()

    async def _gather(self, gathering: Gathering, flow: Flow) -> None:
        try:
            await flow.run()
        except Exception as exc:  # noqa: BLE001 - it is the outcome of all these futures
            self._fail(gathering, exc)

    def _gathered(self, owner: asyncio.Task[None]) -> None:
        gathering = self._gatherings.pop(owner)
        # A callback, not a `finally`: a task cancelled before its first step runs no code.
        if owner.cancelled():
            self._fail(gathering, asyncio.CancelledError("the executor's batch was cancelled"))
        gathering.close()

    def _fail(self, gathering: Gathering, error: BaseException) -> None:
        """Settle what was sent with this batch, and what would have been."""
        gathering.settle_rest(error)
        if self._gathering is gathering:
            for call in self._queue.take(len(self._queue)):
                call[0].set_exception(error)

    def _cancel(self, future: AsyncFuture[Any]) -> bool:
        if not self._queue.remove(future):
            self._gates.remove(future)
        future.set_cancelled()
        self._wind_up()
        return True

    def _cancel_submitted(self) -> None:
        for call in self._gates.clear():
            call[0].set_cancelled()
        for owner, gathering in self._gatherings.items():
            self._fail(gathering, asyncio.CancelledError("the executor was shut down"))
            _cancel_once(owner)

    def _wind_up(self) -> None:
        """After shutdown: close the queue behind its last call, and cancel batches of which nothing is awaited."""
        if not self._is_shut_down or not self._gates.empty:
            return
        self._queue.close()
        if self._queue:
            return
        for owner, gathering in self._gatherings.items():
            if gathering.unwanted:
                _cancel_once(owner)

    def _iterate(self, window: CallWindow) -> asyncio.Task[None]:
        self._refuse_after_shutdown()
        owner = self._own(_run_window(Flow(self._farm, window, window.deliver, self._schedule), window))
        self._windows[owner] = window
        owner.add_done_callback(self._iterated)
        return owner

    def _iterated(self, owner: asyncio.Task[None]) -> None:
        window = self._windows.pop(owner)
        if owner.cancelled():
            window.finish(asyncio.CancelledError("the executor's batch was cancelled"))

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        owner = self._farm.own(work)
        self._owners.add(owner)
        owner.add_done_callback(self._owners.discard)
        return owner

    def _refuse_after_shutdown(self) -> None:
        if self._is_shut_down:
            raise ExecutorShutdownError("the executor has been shut down")


def _cancel_once(owner: asyncio.Task[None]) -> None:
    """Cancel the owner of a batch; a second time would interrupt how it cancels that on the farm."""
    if not owner.cancelling():
        owner.cancel()


async def _run_window(flow: Flow, window: CallWindow) -> None:
    try:
        await flow.run()
    except Exception as exc:  # noqa: BLE001 - whoever waits for results raises it
        window.finish(surfaced(exc))
    else:
        window.finish(StopAsyncIteration())


def _place(segment: Segment, values: list[Any]) -> None:
    """Put values where they belong."""
    places = positions(segment)
    stop = places.stop if isinstance(places, range) else max(places) + 1
    values.extend([None] * (stop - len(values)))
    if isinstance(places, range):
        values[places.start : stop] = segment.values
        return
    for place, value in zip(places, segment.values, strict=True):
        values[place] = value
