"""What arq expects to find on the server: the names and the form of its jobs.

Our jobs carry no arguments (arq logs them): the id says all, and payloads live in the batch store. arq's own module
of constants is not imported, because that loads its worker into every producer; a test compares the two.
"""

from __future__ import annotations

from typing import Any, cast

import msgpack

JOB_PREFIX = "arq:job:"
IN_PROGRESS_PREFIX = "arq:in-progress:"
RETRY_PREFIX = "arq:retry:"

FUNCTION = "run_chunk"
"""The one function that our workers register."""

IN_PROGRESS_MS = 10_000
"""How long arq marks a job as started when there is no job timeout: `max_timeout or 0` plus 10 s (arq/worker.py)."""

CLOCK_SKEW_MS = 3_600_000
"""Scores lie this far in the past: arq skips a job whose score is ahead of the worker's clock."""

LANE_GAP_MS = 5 * 365 * 86_400_000
"""Scores of different wake lists lie this far apart, so that they never mix: no chunk waits for five years."""


def serialize_job(job: dict[str, Any]) -> bytes:
    """Encode a job or a result for arq: msgpack, never pickle."""
    return cast("bytes", msgpack.packb(job, default=repr))


def deserialize_job(raw: bytes) -> dict[str, Any]:
    """Decode a job for arq; the scripts write only its function `f` and its enqueue time `et` (ms)."""
    job: dict[str, Any] = {"t": None, "a": (), "k": {}, **msgpack.unpackb(raw)}
    return job
