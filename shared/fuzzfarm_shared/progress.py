"""Progress of subprocess jobs: what a worker tells of those that run, while somebody looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fuzzfarm_shared.errors import CodecError
from fuzzfarm_shared.values import pack, unpack

TELL_EVERY_S = 1.0
"""How often a worker tells, and a reader looks: often enough for people, and next to nothing for the server."""

WATCHED_S = 5.0
"""So long after a look somebody counts as looking: a reader may be late, and is soon forgotten when it has gone."""

TAIL_BYTES = 1_024
"""Most that is told of the newest output of each stream: a few lines."""

ALL_TAILS_BYTES = 64 * 1_024
"""Most of all such output in one message: of many jobs at once, less is told of each."""

MOST_TOLD = 100
"""Jobs of one chunk that are told of: more is no use to people, and bounds what the server holds."""

MOST_CHUNKS = 100
"""Chunks of one batch that are told of at the same time; a reader takes in all of them every second."""

MESSAGE_BYTES = 512 * 1_024
"""A message about one chunk is below this: its tails, three times as long where their bytes are no text, and keys."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a subprocess job is that runs.

    Attributes:
        key: of the operation.
        attempt: number of the attempt, counted from 1.
        worker: where it runs.
        running_s: seconds since its start.
        stdout_bytes: what it has written to its standard output so far.
        stderr_bytes: the same of its error output.
        stdout_tail: the newest of it, at most 1,024 bytes.
        stderr_tail: the same of its error output.
        memory_bytes: the resident set of the program itself, without its children, where the system tells it.
        cpu_time_s: user and system seconds of it and the children it has waited for, where the system tells them.
    """

    key: str
    attempt: int
    worker: str
    running_s: float
    stdout_bytes: int
    stderr_bytes: int
    stdout_tail: str = ""
    stderr_tail: str = ""
    memory_bytes: int | None = None
    cpu_time_s: float | None = None


def progress_context(batch: str, submit_id: str, chunk: int) -> tuple[str | int, ...]:
    """Return what the signature of a chunk's progress is bound to."""
    return ("progress", batch, submit_id, chunk)


def tail_bytes(jobs: int) -> int:
    """Return how much of the newest output of each stream may be told of so many jobs."""
    return min(TAIL_BYTES, ALL_TAILS_BYTES // (2 * max(jobs, 1)))


def encode_progress(told: Iterable[Progress]) -> bytes:
    """Return what travels."""
    return pack([[getattr(progress, name) for name in Progress.__slots__] for progress in told])


def decode_progress(body: bytes) -> list[Progress]:
    """Return what `encode_progress` was given; raises CodecError for anything else."""
    rows: Any = unpack(body)
    try:
        return [_checked(row) for row in rows]
    except TypeError as exc:
        raise CodecError("this is no progress: it was not written by fuzzfarm") from exc


_TYPES = (str, int, str, float | int, int, int, str, str, int | None, float | int | None)
"""Of the fields, in order."""


def _checked(row: Sequence[Any]) -> Progress:
    if len(row) != len(_TYPES) or not all(map(isinstance, row, _TYPES)):
        raise TypeError
    return Progress(*row)
