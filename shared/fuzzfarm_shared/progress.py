"""Progress of subprocess jobs: what a worker tells of those that run, while somebody looks."""

from __future__ import annotations

from collections.abc import Iterable
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

MOST_TOLD = 100
"""Jobs of one chunk that are told of: more is no use to people, and bounds what the server holds."""


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
        stdout_tail: the newest of it that is kept, at most 1,024 bytes; beyond `max_output_bytes` nothing is kept.
        stderr_tail: the same of its error output.
    """

    key: str
    attempt: int
    worker: str
    running_s: float
    stdout_bytes: int
    stderr_bytes: int
    stdout_tail: str = ""
    stderr_tail: str = ""


def progress_context(batch: str, submit_id: str, chunk: int) -> tuple[str | int, ...]:
    """Return what the signature of a chunk's progress is bound to."""
    return ("progress", batch, submit_id, chunk)


def encode_progress(told: Iterable[Progress]) -> bytes:
    """Return what travels."""
    return pack([[getattr(progress, name) for name in Progress.__slots__] for progress in told])


def decode_progress(body: bytes) -> list[Progress]:
    """Return what `encode_progress` was given; raises CodecError for anything else."""
    rows: Any = unpack(body)
    try:
        return [_checked(*row) for row in rows]
    except TypeError as exc:
        raise CodecError("this is no progress: it was not written by fuzzfarm") from exc


def _checked(key: Any, attempt: Any, worker: Any, running_s: Any, *rest: Any) -> Progress:
    progress = Progress(key, attempt, worker, running_s, *rest)
    texts = (progress.key, progress.worker, progress.stdout_tail, progress.stderr_tail)
    numbers = (progress.attempt, progress.running_s, progress.stdout_bytes, progress.stderr_bytes)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int | float) for n in numbers):
        raise TypeError
    return progress
