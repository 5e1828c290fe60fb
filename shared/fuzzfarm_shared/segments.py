"""Segments: the outcomes of some operations of one chunk, committed as one and encoded in columns.

Body: `[first, keys or None, indexes, values, errors, attempt, worker, epoch, started, durations]`. `indexes` is
`[lo, hi]` for a range, else a column of unsigned 32-bit numbers; `values` holds one value
per operation (None where it failed); `errors` maps places in the segment to errors; `started` and `durations` are
columns of 32-bit floats in seconds (`started` counts from `epoch`, so that milliseconds survive in an hour).

A small result of a positional batch takes its value plus 8 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fuzzfarm_shared.columns import pack_column, unpack_column
from fuzzfarm_shared.errors import CodecError
from fuzzfarm_shared.outcomes import OperationError, Outcome
from fuzzfarm_shared.values import pack, unpack


@dataclass(frozen=True, slots=True)
class Segment:
    """Outcomes of one commit, in columns; all sequences have one entry per operation.

    Attributes:
        first: batch position of the first operation of the payload.
        keys: keys of these operations, or None where positions are the keys.
        indexes: places of these operations in the payload.
        values: what they returned; None for those that failed.
        errors: why some failed, by place in this segment.
        attempt: the attempt that ran them.
        worker: the worker that ran them.
        epoch: seconds since the epoch from which `started` counts.
        started: seconds from `epoch` to the start of each.
        durations: seconds that each took.
    """

    first: int
    keys: list[str] | None
    indexes: Sequence[int]
    values: list[Any]
    errors: dict[int, OperationError]
    attempt: int
    worker: str
    epoch: float
    started: Sequence[float]
    durations: Sequence[float]

    def __len__(self) -> int:
        return len(self.values)

    def operation_keys(self) -> list[str]:
        """Return the key of each operation."""
        if self.keys is not None:
            return self.keys
        if isinstance(self.indexes, range):
            return list(map(str, range(self.first + self.indexes.start, self.first + self.indexes.stop)))
        return [str(self.first + index) for index in self.indexes]

    def outcomes(self) -> Iterator[Outcome]:
        """Yield one `Outcome` per operation, in the order of this segment."""
        errors, attempt, worker, epoch = self.errors, self.attempt, self.worker, self.epoch
        rows = zip(self.operation_keys(), self.values, self.started, self.durations, strict=True)
        if not errors:
            for key, value, started, duration in rows:
                yield Outcome(key, True, value, None, attempt, worker, epoch + started, duration)
            return
        for place, (key, value, started, duration) in enumerate(rows):
            error = errors.get(place)
            yield Outcome(key, error is None, value, error, attempt, worker, epoch + started, duration)


def encode_segment(segment: Segment) -> bytes:
    """Return the body of `segment`.

    Raises:
        UnsupportedValueError: when a value cannot travel.
    """
    return pack(
        [
            segment.first,
            segment.keys,
            _pack_indexes(segment.indexes),
            segment.values,
            segment.errors,
            segment.attempt,
            segment.worker,
            segment.epoch,
            pack_column("f", segment.started),
            pack_column("f", segment.durations),
        ]
    )


def decode_segment(body: bytes) -> Segment:
    """Return the outcomes in `body`.

    Raises:
        CodecError: for a body that `encode_segment` cannot have made.
    """
    try:
        first, keys, packed_indexes, values, errors, attempt, worker, epoch, started, durations = unpack(body)
        indexes = _unpack_indexes(packed_indexes)
        columns = (unpack_column("f", started), unpack_column("f", durations))
        segment = Segment(first, keys, indexes, values, errors, attempt, worker, epoch, *columns)
        _check_shape(segment)
    except (TypeError, ValueError, OverflowError) as exc:
        raise CodecError(f"not a segment of outcomes: {exc}") from exc
    return segment


def _check_shape(segment: Segment) -> None:
    types = [
        type(segment.first),
        type(segment.values),
        type(segment.errors),
        type(segment.attempt),
        type(segment.worker),
    ]
    if types != [int, list, dict, int, str] or type(segment.epoch) is not float:
        raise CodecError("a field is of another type")
    if segment.keys is not None and not (type(segment.keys) is list and set(map(type, segment.keys)) <= {str}):
        raise CodecError("a key is not text")
    columns = [segment.indexes, segment.values, segment.started, segment.durations, segment.keys]
    if len({len(column) for column in columns if column is not None}) != 1:
        raise CodecError("its columns differ in length")
    if not all(type(place) is int and type(error) is OperationError for place, error in segment.errors.items()):
        raise CodecError("an error is of another type")


def _pack_indexes(indexes: Sequence[int]) -> list[int] | bytes:
    return [indexes.start, indexes.stop] if isinstance(indexes, range) else pack_column("I", indexes)


def _unpack_indexes(packed: list[int] | bytes) -> Sequence[int]:
    return range(*packed) if isinstance(packed, list) else unpack_column("I", packed)
