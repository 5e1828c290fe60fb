"""The subprocess jobs that run right now, as far as workers have told."""

from __future__ import annotations

import time
from collections.abc import Callable

from fuzzfarm.cli.printable import printable
from fuzzfarm.cli.views import size
from fuzzfarm_shared.progress import WATCHED_S, Progress

MOST_SHOWN = 3
"""Lines for running jobs: those that have run longest say most about what is being waited for."""

MOST_CHARS = 60
"""Of a job's newest line of output, and of its key."""


class RunningJobs:
    """The last that was told of each job; what was not told of lately has ended, or its worker is gone.

    Args:
        clock: seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, tuple[Progress, float]] = {}

    def note(self, progress: Progress) -> None:
        """Take in what was told."""
        self._told[progress.key] = (progress, self._clock())

    def end(self, key: str) -> None:
        """Forget a job that has its outcome."""
        self._told.pop(key, None)

    def now(self) -> tuple[Progress, ...]:
        """Return what runs, the job that has run longest first."""
        before = self._clock() - WATCHED_S
        self._told = {key: told for key, told in self._told.items() if told[1] >= before}
        return tuple(sorted((told for told, _ in self._told.values()), key=lambda told: -told.running_s))


def lines(jobs: tuple[Progress, ...]) -> list[str]:
    """Return a line for each of the jobs that have run longest, and one for the number of all others."""
    shown = [line(job) for job in jobs[:MOST_SHOWN]]
    more = len(jobs) - len(shown)
    return [*shown, f"  and {more:,} more running"] if more > 0 else shown


def line(job: Progress) -> str:
    """Return what is known of one job: its key, how long it runs, what it wrote, and its newest line of that."""
    newest = _newest_line(job.stdout_tail) or _newest_line(job.stderr_tail)
    written = size(job.stdout_bytes + job.stderr_bytes)
    return f"  {_clipped(job.key)}  {job.running_s:.0f} s  {written}" + (f"  {newest}" if newest else "")


def _newest_line(text: str) -> str:
    return next((_clipped(line) for line in reversed(text.splitlines()) if line.strip()), "")


def _clipped(text: str) -> str:
    clean = printable(text.strip())
    return clean if len(clean) <= MOST_CHARS else clean[: MOST_CHARS - 3] + "..."
