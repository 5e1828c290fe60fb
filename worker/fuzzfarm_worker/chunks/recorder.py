"""The outcomes of a chunk between their operation's end and their commit, in columns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fuzzfarm_shared.errors import UnsupportedValueError
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_shared.payloads import Payload
from fuzzfarm_shared.segments import Segment, encode_segment
from fuzzfarm_shared.values import pack
from fuzzfarm_worker.failures import operation_error

SEGMENT_BYTES = 4_000_000
"""A longer segment is halved: it would keep the server and its readers busy for milliseconds."""


@dataclass(frozen=True, slots=True)
class EncodedSegment:
    """Some outcomes, ready to be committed.

    Attributes:
        body: the encoded segment.
        indexes: places of the operations in their payload.
        failed: how many of them have an error.
    """

    body: bytes
    indexes: Sequence[int]
    failed: int


@dataclass(slots=True)
class Recorder:
    """Collects outcomes; `record` is called once per operation, so it does as little as possible."""

    payload: Payload
    attempt: int
    worker: str
    max_value_bytes: int
    _indexes: list[int] = field(default_factory=list)
    _values: list[Any] = field(default_factory=list)
    _errors: dict[int, OperationError] = field(default_factory=dict)
    _started: list[float] = field(default_factory=list)
    _durations: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._indexes)

    def record(self, index: int, ok: bool, value: Any, _tries: int, started: float, duration_s: float) -> None:
        """Note the outcome of one operation.

        Args:
            index: its place in the payload.
            ok: whether it returned.
            value: what it returned, or the exception that it raised.
            _tries: how often it was tried.
            started: when its first try started, on the monotonic clock.
            duration_s: seconds from there to its end.
        """
        if not ok:
            error = operation_error(value, self.attempt, self.worker)
            if error.kind is ErrorKind.INVALID_RESULT:  # found by a child, which knows no key
                error = replace(error, message=_named(self.payload, index, error.message))
            self._errors[len(self._indexes)] = error
            value = None
        self._indexes.append(index)
        self._values.append(value)
        self._started.append(started)
        self._durations.append(duration_s)

    def take(self) -> Iterator[EncodedSegment]:
        """Encode and forget what was noted so far, in segments of bounded size.

        A value that cannot travel becomes an `invalid_result` error of its operation.
        """
        if not self._indexes:
            return
        indexes, values, errors = self._indexes, self._values, self._errors
        started, durations = self._started, self._durations
        if (in_order := sorted(indexes)) != indexes:
            # Operations that overlap end in any order; sorted, a run without gaps takes 8 bytes in all.
            order = sorted(range(len(indexes)), key=indexes.__getitem__)
            values, started, durations = ([row[place] for place in order] for row in (values, started, durations))
            errors = {place: errors[was] for place, was in enumerate(order) if was in errors}
            indexes = in_order
        self._indexes, self._values, self._errors, self._started, self._durations = [], [], {}, [], []
        offset = time.time() - time.monotonic()
        first = min(started)
        segment = Segment(
            first=self.payload.first,
            keys=None if self.payload.keys is None else self.payload.keys_of(indexes),
            indexes=_as_range(indexes),
            values=values,
            errors=errors,
            attempt=self.attempt,
            worker=self.worker,
            epoch=offset + first,
            started=[moment - first for moment in started],
            durations=durations,
        )
        yield from self._encoded(segment)

    def _encoded(self, segment: Segment) -> Iterator[EncodedSegment]:
        try:
            body = encode_segment(segment)
        except UnsupportedValueError:
            body = encode_segment(self._with_valid_values(segment))
        if len(body) > SEGMENT_BYTES and len(segment) > 1:
            middle = len(segment) // 2
            yield from self._encoded(_slice(segment, 0, middle))
            yield from self._encoded(_slice(segment, middle, len(segment)))
            return
        if len(body) > self.max_value_bytes:
            segment = self._with_valid_values(segment)
            body = encode_segment(segment)
        yield EncodedSegment(body, segment.indexes, len(segment.errors))

    def _with_valid_values(self, segment: Segment) -> Segment:
        """Put errors in the place of values that cannot travel, or are too large; changes `segment`."""
        for place, value in enumerate(segment.values):
            try:
                size_bytes = len(pack(value))
            except UnsupportedValueError as exc:
                message = str(exc)
            else:
                if size_bytes <= self.max_value_bytes:
                    continue
                message = (
                    f"the result takes {size_bytes:,} bytes and the limit is {self.max_value_bytes:,}: "
                    "write it to a file and return the path, or raise FUZZFARM_MAX_PAYLOAD_BYTES on every host"
                )
            segment.values[place] = None
            segment.errors[place] = OperationError(
                ErrorKind.INVALID_RESULT,
                type(value).__qualname__,
                _named(self.payload, segment.indexes[place], message),
                attempt=self.attempt,
                worker=self.worker,
            )
        return segment


def _named(payload: Payload, index: int, message: str) -> str:
    return f"operation {payload.keys_of([index])[0]!r}: {message}"


def _as_range(indexes: list[int]) -> Sequence[int]:
    """Return sorted distinct numbers as a range, if they are one."""
    first, behind = indexes[0], indexes[-1] + 1
    return range(first, behind) if behind - first == len(indexes) else indexes


def _slice(segment: Segment, start: int, stop: int) -> Segment:
    return Segment(
        first=segment.first,
        keys=None if segment.keys is None else segment.keys[start:stop],
        indexes=segment.indexes[start:stop],
        values=segment.values[start:stop],
        errors={place - start: error for place, error in segment.errors.items() if start <= place < stop},
        attempt=segment.attempt,
        worker=segment.worker,
        epoch=segment.epoch,
        started=segment.started[start:stop],
        durations=segment.durations[start:stop],
    )
