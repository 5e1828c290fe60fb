"""Streams of a batch: its outcomes as they are recorded, and how far its jobs are meanwhile."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from functools import partial
from itertools import islice
from typing import Generic, Self, TypeVar

from fuzzfarm_shared.outcomes import Outcome
from fuzzfarm_shared.progress import TELL_EVERY_S, Progress
from fuzzfarm_shared.segments import Segment
from fuzzfarm_shared.store import OutcomeCursor, ReadingStore, TellingStore
from fuzzfarm_shared.store.readings import Entry

MOMENT_S = 0.02
"""Outcomes wait so long for a look, once a second: ten times what it takes on a server that is near and not busy."""

T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E")


class _Stream(AsyncIterator[T_co], ABC, Generic[T_co, E]):
    """Outcomes of segments, and the cursor behind the last one that was taken.

    Args:
        open_source: gives what is read, from behind an entry on.
        start: where to begin.
    """

    def __init__(self, open_source: Callable[[str], AsyncGenerator[E, None]], start: OutcomeCursor) -> None:
        self._open_source = open_source
        self._source = open_source(start.entry)
        self._outcomes: Iterator[Outcome] = iter(())
        self._behind = start.entry
        self._taken = start.taken
        self._current: str | None = None

    @property
    def cursor(self) -> str:
        """The place behind the last outcome that was taken; give it to `Batch.stream` to go on from there."""
        return str(OutcomeCursor(self._behind, self._taken))

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> T_co:
        """Wait for what comes next."""

    async def take(self) -> list[T_co] | None:
        """Return what came with one read, for loops that count time per call; None at the end."""
        try:
            return [await anext(self), *self._at_hand()]
        except StopAsyncIteration:
            return None

    async def aclose(self) -> None:
        """Stop reading."""
        await self._source.aclose()

    async def _read(self) -> E:
        """Return what comes next from the source; all outcomes of the current segment are taken."""
        try:
            return await anext(self._source)
        except StopAsyncIteration:
            raise
        except BaseException:
            # It ends with what it raises. Whoever goes on after a cancellation, by a timeout, must not find the end.
            self._source = self._open_source(self._current or self._behind)
            raise

    @abstractmethod
    def _at_hand(self) -> Iterator[T_co]:
        """Yield what needs no waiting."""

    def _taken_outcomes(self) -> Iterator[Outcome]:
        for outcome in self._outcomes:
            self._taken += 1
            yield outcome

    def _enter(self, entry: Entry) -> None:
        """Go on with the outcomes of the next segment."""
        if self._current is not None:
            self._behind, self._taken = self._current, 0
        self._current, segment = entry
        self._outcomes = islice(segment.outcomes(), self._taken, None)


class OutcomeStream(_Stream[Outcome, Entry]):
    """Outcomes in completion order; made by `Batch.stream`."""

    def __init__(self, readings: ReadingStore, batch: str, start: OutcomeCursor) -> None:
        super().__init__(partial(readings.segments, batch), start)

    async def __anext__(self) -> Outcome:
        while (outcome := next(self._outcomes, None)) is None:
            self._enter(await self._read())
        self._taken += 1
        return outcome

    def _at_hand(self) -> Iterator[Outcome]:
        return self._taken_outcomes()


class LiveStream(_Stream[Outcome | Progress, Entry | list[Progress]]):
    """Outcomes in completion order, and between them the progress of running jobs; made by `Batch.stream`.

    Workers stop telling progress a few seconds after it was closed, or is no longer read.
    """

    def __init__(self, readings: ReadingStore, telling: TellingStore, batch: str, start: OutcomeCursor) -> None:
        self._looks = _Looks(telling, batch)
        super().__init__(partial(_events, readings, self._looks, batch), start)
        self._progress: deque[Progress] = deque()

    async def __anext__(self) -> Outcome | Progress:
        while True:
            if self._progress:
                return self._progress.popleft()
            if (outcome := next(self._outcomes, None)) is not None:
                self._taken += 1
                return outcome
            event = await self._read()
            if isinstance(event, list):
                self._progress.extend(event)
            else:
                self._looks.note_ended(event[1])
                self._enter(event)

    def _at_hand(self) -> Iterator[Outcome | Progress]:
        while self._progress:
            yield self._progress.popleft()
        yield from self._taken_outcomes()


async def _events(
    readings: ReadingStore, looks: _Looks, batch: str, after: str
) -> AsyncGenerator[Entry | list[Progress], None]:
    """Yield segments, and about every second the progress that is new."""
    try:
        await looks.begin(await readings.submit_id(batch))
        async for read in readings.reads(batch, after, TELL_EVERY_S):
            for entry in read:
                yield entry
            if fresh := await looks.fresh():
                yield fresh
    finally:
        await looks.aclose()


class _Looks:
    """Looks at progress beside the outcomes, one look after the other; a slow one is left to come later.

    Args:
        telling: where progress is told.
        batch: whose.
    """

    def __init__(self, telling: TellingStore, batch: str) -> None:
        self._telling = telling
        self._batch = batch
        self._submit_id = ""
        self._look_at = 0.0
        self._looking: asyncio.Task[dict[int, list[Progress]]] | None = None
        self._told: dict[int, list[Progress]] | None = None
        self._ended: set[str] = set()

    async def begin(self, submit_id: str) -> None:
        """Have workers tell. What was told before may be old, so it is only what later looks are compared with."""
        self._submit_id = submit_id
        await self.fresh()

    async def fresh(self) -> list[Progress]:
        """Return what was told since the last look, if it is time for one or one has come back."""
        if self._looking is None:
            if time.monotonic() < self._look_at:
                return []
            self._look_at = time.monotonic() + TELL_EVERY_S
            self._ended.clear()
            self._looking = asyncio.create_task(self._telling.look(self._batch, self._submit_id))
            await asyncio.wait([self._looking], timeout=MOMENT_S)
        if not self._looking.done():
            return []
        told, self._looking = self._looking.result(), None
        before, self._told = self._told, told
        if before is None:
            return []
        new = (progress for chunk, some in told.items() if some != before.get(chunk) for progress in some)
        return [progress for progress in new if progress.key not in self._ended]

    def note_ended(self, segment: Segment) -> None:
        """Leave the operations of a segment out of a look that has begun before it came."""
        if self._looking is not None:
            self._ended.update(segment.operation_keys())

    async def aclose(self) -> None:
        """Look no more."""
        if self._looking is not None:
            looking, self._looking = self._looking, None
            looking.cancel()
            await asyncio.wait([looking])
