"""How a worker leaves: in order at the first signal, at once at the second, killed at the third.

Whatever happens it is gone after a while: what it then still holds runs again when its leases have ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from fuzzfarm_shared.log import get_logger

LONGEST_LEAVE_S = 20.0
"""Beyond the grace period: to hand back what is held and to end children."""

LONGEST_HURRY_S = 5.0
"""The same after a second signal, and when nothing is held any more; coroutines that swallow it get 2 s of that."""

log = get_logger(__name__)


class Departure:
    """What signals set off that tell this process to go.

    Args:
        grace_s: what running operations get.
        leave: asks all work to end; called a second time, at once.
        end: returns when all work has ended, and ends the worker.
    """

    def __init__(self, grace_s: float, leave: Callable[[], None], end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._grace_s = grace_s
        self._leave = leave
        self._end = end
        self._ending: asyncio.Task[None] | None = None
        self._signals = 0

    def listen(self) -> None:
        """Wait for signals from now on; needs the main thread and its running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            log.info("told to go: what runs may end", grace_s=self._grace_s)
            self._kill_in(self._grace_s + LONGEST_LEAVE_S)
            self._leave()
            self._ending = asyncio.create_task(self._end_soon())
        elif self._signals == 2:
            log.warning("told to go at once")
            self._kill_in(LONGEST_HURRY_S)
            self._leave()
        else:
            self._kill()

    async def _end_soon(self) -> None:
        await self._end()
        self._kill_in(LONGEST_HURRY_S)  # only good-byes are left, which a server that is away does not hear

    def _kill_in(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._kill)

    def _kill(self) -> None:
        log.error("this worker has not ended and is killed: what it holds runs again when its leases have ended")
        os.kill(os.getpid(), signal.SIGKILL)
