"""Outcomes as executors need them: by position, and errors as exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from fuzzfarm_shared.errors import RemoteError, RemoteTimeoutError
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_shared.segments import Segment


def positions(segment: Segment) -> Sequence[int]:
    """Return the batch position of each outcome.

    Raises:
        RemoteError: for operations that no worker could read, so that nobody knows which these are.
    """
    if segment.keys is not None:
        raise RemoteError(next(iter(segment.errors.values())))
    first = segment.first
    if isinstance(segment.indexes, range):
        return range(first + segment.indexes.start, first + segment.indexes.stop)
    return [first + index for index in segment.indexes]


def rows(segment: Segment) -> Iterator[tuple[int, Any, OperationError | None]]:
    """Yield (position, value, error) of each outcome; raises as `positions`."""
    errors = segment.errors
    for place, (position, value) in enumerate(zip(positions(segment), segment.values, strict=True)):
        yield position, value, errors.get(place)


def exception_of(error: OperationError) -> BaseException:
    """Return what an executor raises for a recorded error."""
    if error.kind is ErrorKind.CANCELLED:
        return asyncio.CancelledError(error.message)
    return RemoteTimeoutError(error) if error.kind is ErrorKind.TIMEOUT else RemoteError(error)
