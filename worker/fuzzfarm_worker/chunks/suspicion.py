"""What is made of the deaths of workers that held a chunk: which examples are suspected, and which blamed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType

from fuzzfarm_shared.store import Claim, Suspects

MOST_DEATHS = 3
"""A chunk whose worker died so often: its first operation without an outcome is given up."""

ONE_BY_ONE_DEATHS = 2
"""A chunk whose worker died so often: its operations, or examples, run one at a time, each recorded before the next."""

RECORDED_DEATHS = 2
"""So many workers must have died while one example ran, by the word of their recorders, to blame them on it."""

CAREFUL_EXAMPLES = 10_000
"""Examples that run one by one at most; they take about half a minute."""

MOST_BLAMED = 10
"""Examples of one shard and of what it shared out that may kill workers; then the operation is given up."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a claim says of the workers that died with a shard.

    Attributes:
        claim: of the shard.
    """

    claim: Claim

    @property
    def is_blind(self) -> bool:
        """Whether too many of them died for reasons of which nobody knows anything."""
        return self.claim.unrecorded >= ONE_BY_ONE_DEATHS

    @property
    def may_generate(self) -> bool:
        """Whether what is blamed may be generated: a death that it does not explain may have come of just that."""
        return self.claim.unrecorded in {0, MOST_DEATHS}

    def examples(self, following: int, stop: int) -> range:
        """Return those from `following` to `stop` of which one may have killed workers."""
        told = self.claim.suspects
        if self.is_blind:
            return range(following, min(following + CAREFUL_EXAMPLES, stop))
        if told is None or told.last < following:
            return range(stop, stop)
        start = min(max(told.first, following), stop)
        return range(start, min(told.last + 1, start + CAREFUL_EXAMPLES, stop))

    def deaths_of(self, following: int) -> int:
        """Return how many workers died while this example ran, the next one; 0 where that is not certain enough."""
        if self.claim.unrecorded >= MOST_DEATHS:
            return self.claim.unrecorded
        match self.claim.suspects:
            case Suspects(first, last, deaths) if first == last == following and deaths >= RECORDED_DEATHS:
                return deaths
        return 0

    def reason_to_give_up(self, target: str) -> str | None:
        """Return why this would go on killing workers; None: nobody says that it would."""
        claim = self.claim
        if claim.loading_deaths >= MOST_DEATHS:
            return (
                f"{claim.loading_deaths} workers died while they loaded {target}: "
                "load it in an interpreter of its own to see what it does there"
            )
        if claim.blamed >= MOST_BLAMED:
            return (
                f"{claim.blamed} examples of {target} have killed workers: "
                "see its findings of kind worker_lost, and limit what its examples may use"
            )
        return None


class Line:
    """A lock that tells whether one would have to wait for it."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._wanted = 0

    @property
    def busy(self) -> bool:
        """Whether somebody has it, or will have it first."""
        return self._wanted > 0

    async def __aenter__(self) -> None:
        self._wanted += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self._wanted -= 1
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._wanted -= 1
        self._lock.release()
