"""The slots of one kernel, and which run gets the next one."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future


class Claimant(Protocol):
    """A run, as the slots see it."""

    held: int
    queued: bool

    def offered(self) -> None:
        """A slot is free: take what is of use, now."""


class Slots:
    """Counts slots, and deals them out fairly.

    A run below its fair share (`limit // runs`) is hungry and served first; the others share
    what is left in turn. A run above its share gives a slot up, between two operations, only
    while somebody is hungry, so that a steady mix of runs hands no slot over at all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._claimants = 0
        self.hungry: deque[Claimant] = deque()
        self._greedy: deque[Claimant] = deque()
        self._watchers: list[Future[None]] = []

    @property
    def free(self) -> int:
        """How many slots nobody holds."""
        return self.limit - self.held

    def take(self, claimant: Claimant) -> bool:
        """Take a slot, or queue for one and return False."""
        if claimant.held == 0 and not claimant.queued:
            self._claimants += 1
        if self.held < self.limit:
            self.held += 1
            claimant.held += 1
            return True
        if not claimant.queued:
            claimant.queued = True
            (self.hungry if claimant.held < max(1, self._share) else self._greedy).append(claimant)
        return False

    def give(self, claimant: Claimant) -> None:
        """Give a slot back and offer it to whoever is next."""
        self.held -= 1
        claimant.held -= 1
        if claimant.held == 0 and not claimant.queued:
            self._claimants -= 1
        while self.held < self.limit and (self.hungry or self._greedy):
            following = self.hungry[0] if self.hungry else self._greedy[0]
            self._unqueue(following)
            following.offered()
        if self._watchers and self.held < self.limit:
            self._tell_watchers()

    def must_yield(self, claimant: Claimant) -> bool:
        """Whether the claimant has to give a slot up at the end of its operation."""
        return bool(self.hungry) and claimant.held > self._share

    def leave(self, claimant: Claimant) -> None:
        """Forget a claimant that wants no further slot."""
        if claimant.queued:
            self._unqueue(claimant)

    def _unqueue(self, claimant: Claimant) -> None:
        claimant.queued = False
        if claimant.held == 0:
            self._claimants -= 1
        for queue in (self.hungry, self._greedy):
            if claimant in queue:
                queue.remove(claimant)

    async def wait_free(self, loop: AbstractEventLoop) -> None:
        """Return once a slot is free that no run of this kernel is waiting for."""
        while self.held >= self.limit:
            watcher: Future[None] = loop.create_future()
            self._watchers.append(watcher)
            await watcher

    def _tell_watchers(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    @property
    def _share(self) -> int:
        return self.limit // max(1, self._claimants)
