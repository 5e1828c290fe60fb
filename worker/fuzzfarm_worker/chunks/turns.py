"""Turns: how the shards of many fuzz operations share the children of a farm.

Shards wait in one queue, and each has a child for one turn before it goes to the end of it, so operations get equal
shares (round robin), whatever their examples take, and none waits for another to end. While nobody else waits, a turn
goes on. An operation has as many shards as it takes to keep all workers busy.
"""

from __future__ import annotations

from dataclasses import dataclass

from fuzzfarm_shared.outcomes import FuzzResult
from fuzzfarm_shared.store import Crowd

LEAST_TURN_S = 1.0
"""Shorter turns would spend much of their time on claims and on children of other targets."""

LONGEST_TURN_S = 10.0
"""Longest turn while others wait: with a hundred targets on two workers, each has one about every eight minutes."""

SHORTEST_TURN_S = 0.2
"""Where time is short, turns are, so that each operation has one; below this most of it would go to waste."""

CHANGES_PER_TURN = 4
"""A turn lasts at least so many times as long as it takes to have a child of another target."""

SHARE_OF_AGE = 0.01
"""Turns, and the time between commits, grow with the age of an operation, so that the server keeps few parts of it."""

LOOK_EVERY_S = 1.0
"""How often a shard looks who else waits: one small request."""

LEAST_EXAMPLES = 250
"""Fewer examples than this are not worth a claim."""

LONG_S = 5.0
"""A shard that needs longer than this from now on gives half of its rest to a worker that has nothing to do."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the length of a turn depends on.

    Attributes:
        crowd: who else waits.
        slots: children of the whole farm that may run at once.
        change_s: seconds that it took lately to have a child of another target.
        age_s: seconds since the operation's first claim.
        left_s: seconds that it may still run; None: as long as it takes.
    """

    crowd: Crowd
    slots: int
    change_s: float
    age_s: float
    left_s: float | None

    @property
    def turn_s(self) -> float:
        """Seconds of running after which it is the turn of those who wait."""
        wanted = min(LONGEST_TURN_S, max(LEAST_TURN_S, CHANGES_PER_TURN * self.change_s, SHARE_OF_AGE * self.age_s))
        if self.left_s is None:
            return wanted
        fair = self.left_s * self.slots / (self.crowd.waiting + self.slots) - self.change_s
        return min(wanted, max(SHORTEST_TURN_S, fair))

    def parts(self, examples: int) -> int:
        """Return into how many shards a new operation is cut, so that no worker is left without one.

        Args:
            examples: that it has; a run that is bounded by time has many.
        """
        wanted = -(-self.slots // (self.crowd.waiting + 1))
        return max(1, min(wanted, examples // LEAST_EXAMPLES))


@dataclass(slots=True)
class Turn:
    """One turn of a shard.

    Attributes:
        ran_s: seconds that examples ran.
        examples: that it ran.
        over: whether it has to end.
        look_at_s: when to look who else waits, in seconds of running.
    """

    ran_s: float = 0.0
    examples: int = 0
    over: bool = False
    look_at_s: float = LOOK_EVERY_S

    def note(self, result: FuzzResult) -> None:
        """Take in what ran."""
        self.ran_s += result.duration_s
        self.examples += result.examples

    def takes_long(self, examples_left: int, left_s: float | None) -> bool:
        """Whether what is left is worth sharing with a worker that has nothing to do."""
        if examples_left < 2:
            return False
        if left_s is not None:
            return left_s > LONG_S
        return examples_left * self.ran_s / max(1, self.examples) > LONG_S
