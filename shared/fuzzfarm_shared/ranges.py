"""Sets of small numbers as runs: which units of a chunk have their outcome."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from fuzzfarm_shared.errors import CodecError
from fuzzfarm_shared.values import pack, unpack


@dataclass(slots=True)
class RangeSet:
    """A set of integers, kept as sorted half-open runs that neither touch nor overlap."""

    runs: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.runs)

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self.runs, (number, float("inf"))) - 1
        return place >= 0 and number < self.runs[place][1]

    def add_all(self, numbers: Iterable[int]) -> None:
        """Add numbers in any order."""
        if isinstance(numbers, range) and numbers.step == 1:
            added = [(numbers.start, numbers.stop)] if numbers else []
        else:
            added = [(number, number + 1) for number in numbers]
        self.runs = _merged([*self.runs, *added])

    def missing(self, start: int, stop: int) -> Iterator[int]:
        """Yield the numbers of [start, stop) that are not in the set, in order."""
        for low, high in self.gaps(start, stop):
            yield from range(low, high)

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the runs of [start, stop) that are not in the set, in order."""
        for low, high in self.runs:
            if start < min(low, stop):
                yield start, min(low, stop)
            start = max(start, high)
        if start < stop:
            yield start, stop

    def within(self, start: int, stop: int) -> RangeSet:
        """Return the part of the set in [start, stop)."""
        clipped = ((max(low, start), min(high, stop)) for low, high in self.runs)
        return RangeSet([(low, high) for low, high in clipped if low < high])

    def encode(self) -> bytes:
        """Return the set as bytes; the empty set is empty."""
        return pack([bound for run in self.runs for bound in run]) if self.runs else b""

    @classmethod
    def decode(cls, raw: bytes) -> RangeSet:
        """Return the set in `raw`; CodecError when there is none."""
        bounds = unpack(raw) if raw else []
        if not isinstance(bounds, list) or len(bounds) % 2 or not all(type(bound) is int for bound in bounds):
            raise CodecError("not a set of runs")
        if any(low >= high for low, high in pairwise(bounds)):
            raise CodecError("not a set of runs: they touch or overlap")
        return cls(list(zip(bounds[::2], bounds[1::2], strict=True)))


def _merged(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(runs):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged
