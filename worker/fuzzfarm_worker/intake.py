"""When a worker takes another chunk: never one that would wait here while another worker could run it.

A worker holds the chunks whose operations all run, one more that still has operations to start, and, while chunks
pass in milliseconds, one fetched ahead so that it never waits for the server. While little memory is free it holds
one chunk and no more; an idle worker always takes one, so that nothing waits for ever.
"""

from __future__ import annotations

import asyncio
import time

from fuzzfarm_shared.keys import AttemptId, Lane
from fuzzfarm_worker.executors.kernel import Kernel

PREFETCH_BELOW_S = 0.1
"""Chunks that start all their operations within this are fetched ahead: a claim takes about 3 ms."""

OFFER_EXPIRES_S = 1.0
"""arq does not say when it skips a job that we offered; it runs one within milliseconds."""


class Intake:
    """Counts what this worker has taken and says which lanes it may take from.

    Args:
        kernel: its free slots bound what can start.
        max_children: shards of fuzz operations at once.
    """

    def __init__(self, kernel: Kernel, max_children: int) -> None:
        self._kernel = kernel
        self._max_children = max_children
        self._offered: dict[str, tuple[Lane, float]] = {}
        self._unstarted: dict[str, float] = {}
        self._shards: set[str] = set()
        self._held: set[str] = set()
        self._under_pressure = False
        self._passing_fast = False
        self._closed = False
        self._paused_until = 0.0
        self._changed = asyncio.Event()

    async def room(self, timeout_s: float) -> list[Lane]:
        """Return the lanes to take from, as soon as there is one; [] after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (lanes := self._open_lanes()) or self._undecided():
                    await self._wait_for_change()
        except TimeoutError:
            return self._open_lanes()
        return lanes

    async def other_room(self, lanes: list[Lane]) -> None:
        """Return when other lanes are open than these."""
        while self._open_lanes() == lanes:
            await self._wait_for_change()

    def offer(self, attempt: str, lane: Lane) -> None:
        """Note that arq was given this job."""
        self._offered[attempt] = (lane, time.monotonic())

    def begin(self, attempt: AttemptId, lane: Lane) -> None:
        """Note that the job was claimed and has operations to start."""
        self._offered.pop(str(attempt), None)
        self._held.add(str(attempt))
        if lane is Lane.FUZZ:
            self._shards.add(str(attempt))
        else:
            self._unstarted[str(attempt)] = time.monotonic()
        self._changed.set()

    def started_all(self, attempt: AttemptId) -> None:
        """Note that no operation of the chunk waits here any more; repeating it does nothing."""
        since = self._unstarted.pop(str(attempt), None)
        if since is not None:
            self._passing_fast = time.monotonic() - since < PREFETCH_BELOW_S
            self._changed.set()

    def end(self, attempt: AttemptId) -> None:
        """Note that the chunk is gone, or was never ours."""
        self._offered.pop(str(attempt), None)
        self.started_all(attempt)
        self._shards.discard(str(attempt))
        self._held.discard(str(attempt))
        self._changed.set()

    def pause(self, seconds: float) -> None:
        """Take nothing for a while, so that others get what this worker refused."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def close(self) -> None:
        """Take nothing any more."""
        self._closed = True
        self._changed.set()

    def press(self, under_pressure: bool) -> None:
        """Note whether this worker is short of memory."""
        if under_pressure != self._under_pressure:
            self._under_pressure = under_pressure
            self._changed.set()

    def _open_lanes(self) -> list[Lane]:
        now = time.monotonic()
        if self._closed or now < self._paused_until:
            return []
        if self._under_pressure and (self._held or self._offered):
            return []
        lanes = [lane for lane, _ in self._offered.values()]
        free = self._kernel.free_slots > 0
        backlog = len(self._unstarted) + lanes.count(Lane.SLOTS)
        open_lanes = []
        if (free and not backlog) or self._may_fetch_ahead(backlog, now):
            open_lanes.append(Lane.SLOTS)
        if free and len(self._shards) + lanes.count(Lane.FUZZ) < self._max_children:
            open_lanes.append(Lane.FUZZ)
        return open_lanes

    def _may_fetch_ahead(self, backlog: int, now: float) -> bool:
        """Whether one chunk is starting its operations, and will soon be through with that, as the last one was."""
        youngest = max(self._unstarted.values(), default=0.0)
        return self._passing_fast and backlog == 1 and now - youngest < PREFETCH_BELOW_S

    def _undecided(self) -> bool:
        """Whether arq holds a job that it has neither started nor skipped: that takes it milliseconds."""
        self._drop_expired_offers()
        return bool(self._offered)

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        paused_s = self._paused_until - time.monotonic()
        if paused_s > 0:
            await asyncio.sleep(paused_s)
        elif self._offered:
            # An offer that arq skipped is only known by its age.
            try:
                async with asyncio.timeout(OFFER_EXPIRES_S):  # wait_for of Python 3.11 may swallow a cancellation
                    await self._changed.wait()
            except TimeoutError:
                self._drop_expired_offers()
        elif self._kernel.free_slots == 0:
            await self._kernel.wait_free()
        else:
            await self._changed.wait()

    def _drop_expired_offers(self) -> None:
        now = time.monotonic()
        self._offered = {name: offer for name, offer in self._offered.items() if now - offer[1] < OFFER_EXPIRES_S}
