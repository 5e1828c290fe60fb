"""What is made of the deaths of workers that held a chunk: which examples are suspected, and which blamed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType

from fuzzfarm_shared.keys import ONE_BY_ONE_DEATHS
from fuzzfarm_shared.store import Claim, Suspects

ALONE_DEATHS = 2
"""So many workers must have died while one operation, or example, ran alone, to blame them on it. One is no proof where
workers are killed, cut off and stopped for other reasons: `test_random_trouble.py` failed of that now and then.
"""

MOST_DEATHS = ONE_BY_ONE_DEATHS + ALONE_DEATHS
"""A chunk whose worker died so often: its first operation without an outcome is given up."""

RECORDED_DEATHS = 2
"""So many workers must have died while one example ran, by the word of their recorders, to blame them on it."""

CAREFUL_EXAMPLES = 10_000
"""Examples that run one by one at most; they take about half a minute."""

MOST_LOADING_DEATHS = 10
"""So often in a row workers must have died while they loaded a target to give it up: more than `MOST_DEATHS`, because
what else they did may have killed most of them, and because all of its operation is lost."""

MOST_VAIN_ATTEMPTS = 30
"""So many attempts in a row that got nothing done may end with their worker, or fail in it, for whatever reason."""

MOST_BLAMED = 10
"""Examples of one shard and of what it shared out that may kill workers; then the operation is given up."""


@dataclass(frozen=True, slots=True)
class Blame:
    """Why an example is a finding without running once more.

    Attributes:
        index: the example.
        message: what is known of the workers that died.
        may_generate: whether it may be generated, so that the finding says what it is.
    """

    index: int
    message: str
    may_generate: bool


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a claim says of the workers that died with a shard.

    Attributes:
        claim: of the shard.
        first: its first example without an outcome.
    """

    claim: Claim
    first: int

    @property
    def is_blind(self) -> bool:
        """Whether too many of them died for reasons of which nobody knows anything."""
        return self.claim.unrecorded >= ONE_BY_ONE_DEATHS

    def examples(self, stop: int) -> range:
        """Return those before `stop` of which one may have killed workers."""
        told, first = self.claim.suspects, self.first
        if self.is_blind:
            return range(first, min(first + CAREFUL_EXAMPLES, stop))
        if told is None or told.last < first:
            return range(stop, stop)
        start = min(max(told.first, first), stop)
        return range(start, min(told.last + 1, start + CAREFUL_EXAMPLES, stop))

    def blame(self, index: int) -> Blame | None:
        """Return why an example is to be blamed; None where that is not certain enough.

        A worker that died after the evidence was complete may have died of generating the example for its finding.
        """
        proven, deaths = self._proven, self.claim.unrecorded
        if proven is not None and proven.index == index:
            return proven
        enough = MOST_DEATHS + (proven is not None)
        if index == self.first and deaths >= enough:
            message = f"{deaths} workers died, nobody knows of what, the last {ALONE_DEATHS} when this example was next"
            return Blame(index, message, may_generate=deaths == enough)
        return None

    @property
    def _proven(self) -> Blame | None:
        """The example that alone ran at enough deaths, by the word of recorders."""
        match self.claim.suspects:
            case Suspects(first, last, deaths, newest) if first == last and deaths >= RECORDED_DEATHS:
                return Blame(first, f"{deaths} workers died while they ran this example", may_generate=newest)
        return None

    def reason_to_give_up(self, target: str) -> str | None:
        """Return why this would go on killing workers; None: nobody says that it would."""
        claim = self.claim
        if claim.loading_deaths >= MOST_LOADING_DEATHS:
            return (
                f"{claim.loading_deaths} times in a row workers died while they loaded {target}: "
                "load it in an interpreter of its own to see what it does there"
            )
        if claim.blamed >= MOST_BLAMED:
            return (
                f"{claim.blamed} examples of {target} have killed workers: "
                "see its findings of kind worker_lost, and limit what its examples may use"
            )
        if claim.deaths >= MOST_VAIN_ATTEMPTS:
            return (
                f"{claim.deaths} attempts at a part of this operation ended with their worker, or failed in it, "
                "before they got anything done: the log of the workers says more"
            )
        return None


def reason_to_give_up_operation(claim: Claim) -> str | None:
    """Return why the first operation of a chunk without an outcome is given up; None: it is not."""
    if claim.unrecorded >= MOST_DEATHS:
        return (
            f"{claim.unrecorded} workers died while they ran this operation or its neighbours, the last {ALONE_DEATHS} "
            "while it ran alone: it is given up; see what it does to the processes and the memory of its host"
        )
    if claim.deaths >= MOST_VAIN_ATTEMPTS:
        return (
            f"{claim.deaths} attempts at this operation ended with their worker, or failed in it, before they got "
            "anything done: the log of the workers says more"
        )
    return None


class Line:
    """A lock that tells whether one would have to wait for it.

    `asyncio.Lock.locked` does not: it is False between a release and the turn of the one who waits.
    """

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
