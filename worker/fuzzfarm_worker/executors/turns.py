"""Fairness to the event loop: operations that never suspend get turns, not the whole loop."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

# How long operations that never suspend may hold the loop in one of its iterations, all of
# them together. It is the switch interval of CPython's own threads; shorter costs throughput.
TURN_S = 0.005


class Turns:
    """One turn per iteration of the loop, shared by all lanes of a kernel.

    `until` is when the present turn ends (time.monotonic); 0.0 asks every lane to look up
    after its operation. Waiting lanes are woken together and go on while the turn lasts.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.until = 0.0
        self._loop = loop
        self._waiting: deque[Future[None]] = deque()

    async def next(self) -> None:
        """Give the loop back, and return within a new turn."""
        while True:
            if not self._waiting:
                self._loop.call_soon(self._begin)
            turn: Future[None] = self._loop.create_future()
            self._waiting.append(turn)
            await turn
            if monotonic() < self.until:
                return

    def _begin(self) -> None:
        self.until = monotonic() + TURN_S
        waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)
