"""Live numbers of fuzz operations: what each has done so far, and all of a batch together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import FuzzResult, OperationError
from fuzzfarm_shared.store.fuzz_readings import FuzzReadings

RATE_WINDOW_S = 30.0
"""Rates are means over this: shards of long runs commit every few seconds only."""

PLACES_PER_READ = 128
"""Operations looked at in one reading; those of larger batches take turns."""


@dataclass(frozen=True, slots=True)
class OperationStatus:
    """One fuzz operation at one moment.

    Attributes:
        key: its key.
        result: what it has done so far; findings are not as small as they may become.
        examples_per_s: examples per second lately, on all workers together; in a first reading, and of an operation
            that has ended, per second of running.
        ended: whether it has its outcome.
        error: why it failed; None when it did not.
    """

    key: str
    result: FuzzResult
    examples_per_s: float
    ended: bool = False
    error: OperationError | None = None


@dataclass(frozen=True, slots=True)
class FuzzStatus:
    """The fuzz operations of a batch at one moment.

    Attributes:
        batch: the key of the batch.
        operations: those that have begun, by key.
        total: their results as one.
    """

    batch: str
    operations: dict[str, OperationStatus] = field(default_factory=dict)
    total: FuzzResult = field(default_factory=lambda: merge([]))

    @property
    def examples_per_s(self) -> float:
        """Examples per second of all that run."""
        return sum(one.examples_per_s for one in self.operations.values() if not one.ended)


class Rate:
    """Examples per second over the last `RATE_WINDOW_S`.

    Args:
        clock: seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._points: deque[tuple[float, int]] = deque()

    def note(self, examples: int) -> None:
        """Take in how many there are by now."""
        if not self._points or self._points[-1][1] != examples:
            self._points.append((self._clock(), examples))
        while len(self._points) > 2 and self._clock() - self._points[1][0] > RATE_WINDOW_S:
            self._points.popleft()

    @property
    def per_s(self) -> float | None:
        """The rate; None before there are two numbers to compare."""
        if len(self._points) < 2:
            return None
        (began, first), (ended, last) = self._points[0], self._points[-1]
        if self._clock() - ended > RATE_WINDOW_S:
            return 0.0
        return (last - first) / max(ended - began, 1e-3)


@dataclass(slots=True)
class _Running:
    key: str
    read: int = 0
    result: FuzzResult = field(default_factory=lambda: merge([]))
    rate: Rate = field(default_factory=Rate)


class FuzzWatcher:
    """Reads the fuzz operations of one batch again and again, each result once.

    Args:
        readings: of that batch.
        batch: its key.
    """

    def __init__(self, readings: FuzzReadings, batch: str) -> None:
        self._readings = readings
        self._batch = batch
        self._next = 0
        self._running: dict[int, _Running] = {}
        self._gone: set[int] = set()
        self._ended: dict[str, OperationStatus] = {}

    def note(self, key: str, value: object, error: OperationError | None) -> None:
        """Take in the outcome of an operation, of whatever kind."""
        if isinstance(value, FuzzResult):
            self._ended[key] = OperationStatus(key, value, value.executions_per_s, ended=True)
        elif error is not None and (known := self._by_key(key)) is not None:
            self._ended[key] = OperationStatus(key, known.result, 0.0, ended=True, error=error)

    def _by_key(self, key: str) -> _Running | None:
        return next((running for running in self._running.values() if running.key == key), None)

    async def read(self) -> FuzzStatus:
        """Read what is new of the next operations in turn, and return the state of all that have begun.

        Raises:
            FarmUnreachableError: when the server stays away.
        """
        places = [place for place in range(await self._readings.last_place() + 1) if not self._is_over(place)]
        if places:
            start = self._next % len(places)
            turn = (places[start:] + places[:start])[:PLACES_PER_READ]
            self._next = start + len(turn)
            await self._read(turn)
        return self.status()

    async def read_all(self) -> FuzzStatus:
        """Read what is new of all operations; raises as `read`."""
        await self._read([place for place in range(await self._readings.last_place() + 1) if not self._is_over(place)])
        return self.status()

    def _is_over(self, place: int) -> bool:
        running = self._running.get(place)
        return place in self._gone or (running is not None and running.key in self._ended)

    async def _read(self, places: list[int]) -> None:
        read = {place: running.read if (running := self._running.get(place)) else 0 for place in places}
        for place, results in (await self._readings.results(read)).items() if read else ():
            running = self._running.get(place) or await self._begin(place)
            if running is not None:
                running.read += len(results)
                running.result = merge([running.result, *results]) if running.result.examples else merge(results)
                running.rate.note(running.result.examples)

    async def _begin(self, place: int) -> _Running | None:
        key = await self._readings.operation_key(place)
        if key is None:  # it has just ended, and its outcome tells the rest
            self._gone.add(place)
            return None
        return self._running.setdefault(place, _Running(key))

    def status(self) -> FuzzStatus:
        """Return what was read so far."""
        operations = {
            running.key: OperationStatus(running.key, running.result, self._per_s(running))
            for running in self._running.values()
        } | self._ended
        return FuzzStatus(self._batch, operations, merge(one.result for one in operations.values()))

    @staticmethod
    def _per_s(running: _Running) -> float:
        per_s = running.rate.per_s
        return running.result.executions_per_s if per_s is None else per_s
