"""Progress of a batch: live on a terminal, plain lines without one, nothing beside JSON."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from fuzzfarm.cli.fuzzsheet import fuzz_lines
from fuzzfarm.cli.jobs import lines
from fuzzfarm.cli.output import Output
from fuzzfarm.fuzz_status import FuzzStatus
from fuzzfarm_shared.outcomes import BatchStatus
from fuzzfarm_shared.progress import Progress as JobProgress

RATE_WINDOW_S = 5.0
"""Rates are means over this: long enough to be calm, short enough to follow."""

REFRESH_PER_S = 10
"""Enough for a smooth spinner."""

PLAIN_EVERY_S = 2.0
"""Seconds between lines in a log."""

PLAIN_DETAILS_EVERY_S = 10.0
"""Seconds between lines about jobs and targets that run in a log, which change all the time."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of a batch at one moment.

    Attributes:
        status: its counters.
        workers: live workers of the farm.
        examples_total: examples that were asked for; None: not known, or limited by time.
        jobs: subprocess jobs that run, the one that has run longest first, as far as that was asked for.
        fuzz: the numbers of its fuzz operations; None: there are none, or none has begun.
    """

    status: BatchStatus
    workers: int = 0
    examples_total: int | None = None
    jobs: tuple[JobProgress, ...] = ()
    fuzz: FuzzStatus | None = None

    @property
    def findings(self) -> int:
        """Distinct findings so far."""
        return 0 if self.fuzz is None else len(self.fuzz.total.findings)

    @property
    def fuzzes(self) -> bool:
        """Whether examples are what to count."""
        return self.examples_total is not None or self.status.examples_done > 0

    @property
    def done(self) -> int:
        """Examples, or operations, that are done."""
        return self.status.examples_done if self.fuzzes else self.status.completed

    @property
    def total(self) -> int | None:
        """How many of them there are in all, where that is known."""
        return self.examples_total if self.fuzzes else self.status.total


class Meter(Protocol):
    """Shows readings; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, reading: Reading) -> None:
        """Show what is known now."""


def meter_for(output: Output) -> Meter:
    """Return the meter that suits where `output` goes."""
    if output.as_json:
        return SilentMeter()
    return LiveMeter(output.live_console) if output.live_console else PlainMeter(output.note)


class Rate:
    """Units per second over the last `RATE_WINDOW_S`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._points: deque[tuple[float, int]] = deque()

    def update(self, done: int) -> float:
        """Return the rate, now that `done` units are done in all."""
        now = self._clock()
        self._points.append((now, done))
        while now - self._points[0][0] > RATE_WINDOW_S and len(self._points) > 2:
            self._points.popleft()
        first_at, first = self._points[0]
        return (done - first) / (now - first_at) if now > first_at else 0.0


def describe(reading: Reading, rate: float) -> str:
    """Return a reading in one line."""
    word = "examples" if reading.fuzzes else "operations"
    total = "" if reading.total is None else f" of {reading.total:,}"
    parts = [f"{reading.done:,}{total} {word}", f"{rate:,.0f}/s"]
    if reading.fuzzes or reading.findings:
        parts.append(f"{reading.findings:,} finding{'s' * (reading.findings != 1)}")
    if reading.status.failed:
        parts.append(f"{reading.status.failed:,} failed")
    if reading.status.cancelled:
        parts.append(f"{reading.status.cancelled:,} cancelled")
    if not reading.status.sealed:
        parts.append("still being submitted")
    parts.append(f"{reading.workers} worker{'s' * (reading.workers != 1)}")
    return ", ".join(parts)


def details_of(reading: Reading) -> list[str]:
    """Return lines about the targets and the jobs that run."""
    return [*(fuzz_lines(reading.fuzz) if reading.fuzz is not None else ()), *lines(reading.jobs)]


class _Context:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class SilentMeter(_Context):
    """Shows nothing."""

    def show(self, reading: Reading) -> None:
        """Show nothing."""


class PlainMeter(_Context):
    """Writes a line every two seconds while something changes, and every ten what jobs and targets do, for logs.

    Args:
        write: takes a line.
        clock: seconds of a monotonic clock.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._rate = Rate(clock)
        self._next_at = clock() + PLAIN_EVERY_S
        self._details_at = clock() + PLAIN_DETAILS_EVERY_S
        self._shown: tuple[BatchStatus, int, int] | None = None

    def show(self, reading: Reading) -> None:
        """Write what it is time for and says something new."""
        now = self._clock()
        rate = self._rate.update(reading.done)
        news = (reading.status, reading.findings, reading.workers)
        if now >= self._next_at and news != self._shown:
            self._next_at = now + PLAIN_EVERY_S
            self._shown = news
            self._write(describe(reading, rate))
        if now >= self._details_at and (details := details_of(reading)):
            self._details_at = now + PLAIN_DETAILS_EVERY_S
            for line in details:
                self._write(line)


class LiveMeter:
    """A bar, and lines for targets and for the jobs that run longest; they change in place, and vanish at the end."""

    def __init__(self, console: Console) -> None:
        self._rate = Rate()
        self._progress = Progress(SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.description}"))
        self._task = self._progress.add_task("starting", total=None)
        self._live = Live(self._progress, console=console, transient=True, refresh_per_second=REFRESH_PER_S)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, reading: Reading) -> None:
        """Change the bar and the lines."""
        description = escape(describe(reading, self._rate.update(reading.done)))
        self._progress.update(self._task, description=description, completed=reading.done, total=reading.total)
        details = [Text(line, no_wrap=True, overflow="ellipsis") for line in details_of(reading)]
        self._live.update(Group(self._progress, *details))
