"""Streams of a batch: its outcomes as they are recorded, and how far its jobs are meanwhile."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from itertools import islice
from typing import Generic, Self, TypeVar

from fuzzfarm_shared.outcomes import Outcome
from fuzzfarm_shared.progress import TELL_EVERY_S, Progress
from fuzzfarm_shared.store import OutcomeCursor, ReadingStore, TellingStore
from fuzzfarm_shared.store.readings import Entry

T_co = TypeVar("T_co", covariant=True)


class _Stream(AsyncIterator[T_co], ABC, Generic[T_co]):
    """Outcomes of segments, and the cursor behind the last one that was taken."""

    def __init__(self, start: OutcomeCursor) -> None:
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


class OutcomeStream(_Stream[Outcome]):
    """Outcomes in completion order; made by `Batch.stream`."""

    def __init__(self, readings: ReadingStore, batch: str, start: OutcomeCursor) -> None:
        super().__init__(start)
        self._segments = readings.segments(batch, start.entry)

    async def __anext__(self) -> Outcome:
        while (outcome := next(self._outcomes, None)) is None:
            self._enter(await anext(self._segments))
        self._taken += 1
        return outcome

    async def aclose(self) -> None:
        """Stop reading."""
        await self._segments.aclose()

    def _at_hand(self) -> Iterator[Outcome]:
        return self._taken_outcomes()


class LiveStream(_Stream[Outcome | Progress]):
    """Outcomes in completion order, and between them the progress of running jobs; made by `Batch.stream`."""

    def __init__(self, readings: ReadingStore, telling: TellingStore, batch: str, start: OutcomeCursor) -> None:
        super().__init__(start)
        self._events = _events(readings, telling, batch, start.entry)
        self._progress: deque[Progress] = deque()

    async def __anext__(self) -> Outcome | Progress:
        while True:
            if self._progress:
                return self._progress.popleft()
            if (outcome := next(self._outcomes, None)) is not None:
                self._taken += 1
                return outcome
            event = await anext(self._events)
            if isinstance(event, list):
                self._progress.extend(event)
            else:
                self._enter(event)

    async def aclose(self) -> None:
        """Stop reading; workers stop telling a few seconds later."""
        await self._events.aclose()

    def _at_hand(self) -> Iterator[Outcome | Progress]:
        while self._progress:
            yield self._progress.popleft()
        yield from self._taken_outcomes()


async def _events(
    readings: ReadingStore, telling: TellingStore, batch: str, after: str
) -> AsyncGenerator[Entry | list[Progress], None]:
    """Yield segments, and about every second the progress that is new."""
    submit_id = await readings.submit_id(batch)
    told = await telling.look(batch, submit_id)
    look_at = time.monotonic() + TELL_EVERY_S
    async for read in readings.reads(batch, after, TELL_EVERY_S):
        for entry in read:
            yield entry
        if time.monotonic() >= look_at:
            before, told = told, await telling.look(batch, submit_id)
            look_at = time.monotonic() + TELL_EVERY_S
            yield [progress for chunk, some in told.items() if some != before.get(chunk) for progress in some]
