"""One timer for all deadlines of a kernel."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable


class Alarm:
    """Calls `sweep(now)` at the earliest deadline it was told; `sweep` returns the next one.

    Operations that end in time cost a comparison and no timer: with equal timeouts a new
    deadline is later than the one the alarm is set to, and the sweep finds it.
    """

    def __init__(self, loop: AbstractEventLoop, sweep: Callable[[float], float]) -> None:
        self.at = inf
        self._loop = loop
        self._sweep = sweep
        self._timer: TimerHandle | None = None

    def set(self, deadline: float) -> None:
        """Ring at `deadline` (time.monotonic) if that is earlier than what is set."""
        if deadline >= self.at:
            return
        self.clear()
        self.at = deadline
        # A delay, not a time of the loop: uvloop's clock has another origin.
        self._timer = self._loop.call_later(max(0.0, deadline - monotonic()), self._ring)

    def clear(self) -> None:
        """Forget the deadline."""
        self.at = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self.clear()
        self.set(self._sweep(monotonic()))
