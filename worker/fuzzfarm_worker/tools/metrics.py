"""What a tool did, in one log line for each call and in numbers for each tool."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from fuzzfarm_shared.log import get_logger

REMEMBERED_CALLS = 1_000
"""Percentiles are those of so many last calls: exact, and of bounded memory."""

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ToolMetrics:
    """Numbers of one tool in this process; seconds.

    Attributes:
        calls: calls that have ended.
        errors: those of them that raised, cancelled ones not counted.
        cancelled: those that were cancelled.
        total_s: seconds of all calls together.
        p50_s: half of the last calls took at most this (nearest rank).
        p95_s: 95 of 100 of them did.
        max_s: the longest call ever.
    """

    calls: int
    errors: int
    cancelled: int
    total_s: float
    p50_s: float
    p95_s: float
    max_s: float


@dataclass(slots=True)
class _Counts:
    calls: int = 0
    errors: int = 0
    cancelled: int = 0
    total_s: float = 0.0
    max_s: float = 0.0
    last: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED_CALLS))

    def add(self, seconds: float, error: BaseException | None) -> None:
        self.calls += 1
        if isinstance(error, asyncio.CancelledError):
            self.cancelled += 1
        elif error is not None:
            self.errors += 1
        self.total_s += seconds
        self.max_s = max(self.max_s, seconds)
        self.last.append(seconds)

    def metrics(self) -> ToolMetrics:
        ordered = sorted(self.last)
        return ToolMetrics(
            calls=self.calls,
            errors=self.errors,
            cancelled=self.cancelled,
            total_s=self.total_s,
            p50_s=_nearest_rank(ordered, 0.50),
            p95_s=_nearest_rank(ordered, 0.95),
            max_s=self.max_s,
        )


_counts: dict[str, _Counts] = {}


def tool_metrics() -> dict[str, ToolMetrics]:
    """Return the numbers of every tool that was called in this process, by name."""
    return {name: counts.metrics() for name, counts in _counts.items()}


def reset_tool_metrics() -> None:
    """Forget all numbers."""
    _counts.clear()


def async_track_metrics(name: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Count the calls of an async function, and what they took, under `name`."""

    def note(seconds: float, error: BaseException | None) -> None:
        _counts.setdefault(name, _Counts()).add(seconds, error)

    return _observing(note)


def async_log_execution(tool_name: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Log one line for each call of an async function: the tool, its seconds, and how it ended."""

    def note(seconds: float, error: BaseException | None) -> None:
        if error is None:
            log.info("a tool has run", tool=tool_name, seconds=round(seconds, 3), outcome="ok")
        elif isinstance(error, asyncio.CancelledError):
            log.info("a tool has run", tool=tool_name, seconds=round(seconds, 3), outcome="cancelled")
        else:
            seconds = round(seconds, 3)
            log.warning("a tool has run", tool=tool_name, seconds=seconds, outcome="error", error=type(error).__name__)

    return _observing(note)


def _observing(
    note: Callable[[float, BaseException | None], None],
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Return a decorator that has each call of an async function noted with its seconds and its error."""

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(function)
        async def observed(*args: P.args, **kwargs: P.kwargs) -> T:
            started = time.monotonic()
            try:
                value = await function(*args, **kwargs)
            except BaseException as exc:
                note(time.monotonic() - started, exc)
                raise
            note(time.monotonic() - started, None)
            return value

        return observed

    return decorate


def _nearest_rank(ordered: list[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
