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
"""Of a job's newest line of output."""

MOST_KEY_CHARS = 30
"""Of its key: both fit beside each other into a line of a terminal."""


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
    """Return a line for each of the jobs that have run longest, and one for the number of all others.

    A line tells key, seconds since the start, what was written in all, and the newest line of that.
    """
    shown = jobs[:MOST_SHOWN]
    keys = [_clipped(job.key, MOST_KEY_CHARS) for job in shown]
    seconds = [f"{job.running_s:,.0f} s" for job in shown]
    written = [size(job.stdout_bytes + job.stderr_bytes) for job in shown]
    newest = [_newest_line(job.stdout_tail) or _newest_line(job.stderr_tail) for job in shown]
    aligned = zip(_wide(keys, str.ljust), _wide(seconds, str.rjust), _wide(written, str.rjust), newest, strict=True)
    text = [f"  {'  '.join(cells)}".rstrip() for cells in aligned]
    more = len(jobs) - len(shown)
    return [*text, f"  and {more:,} more running"] if more > 0 else text


def _wide(cells: list[str], align: Callable[[str, int], str]) -> list[str]:
    width = max(map(len, cells), default=0)
    return [align(cell, width) for cell in cells]


def _newest_line(text: str) -> str:
    return next((_clipped(line, MOST_CHARS) for line in reversed(text.splitlines()) if line.strip()), "")


def _clipped(text: str, most: int) -> str:
    clean = printable(text.strip())
    return clean if len(clean) <= most else clean[: most - 3] + "..."
