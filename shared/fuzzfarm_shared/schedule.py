"""When the operations of a batch run, compared with those of others, and when they are given up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fuzzfarm_shared.errors import InvalidOperationError

MAX_DEADLINE_S = 366 * 86_400
"""Longest deadline of a batch: a year, so that a typing error is caught."""


class Priority(StrEnum):
    """How urgent a batch is: its chunks go before those of less urgent batches, whoever came first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class StopReason(StrEnum):
    """Why a batch was told to stop before all of its operations had an outcome."""

    CANCELLED = "cancelled"
    """Somebody cancelled it; the order is signed."""

    DEADLINE = "deadline"
    """The time that its producer gave it is over, which its signed payloads say too."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The wishes of a producer for one batch.

    Attributes:
        priority: workers take chunks of more urgent batches first, and every tenth time those of less urgent ones.
        deadline_s: seconds from its submit, to the second, after which what has no outcome is given up and what runs
            is stopped; None: never.

    Raises:
        InvalidOperationError: for a word that is no priority, and a deadline that cannot be one.
    """

    priority: Priority = Priority.NORMAL
    deadline_s: float | None = None

    @classmethod
    def of(cls, priority: Priority | str, deadline_s: float | None) -> Schedule:
        """Return a schedule of what a user wrote."""
        if priority not in list(Priority):
            raise InvalidOperationError(f"{priority!r} is no priority: use {', '.join(Priority)}")
        return cls(Priority(priority), deadline_s)

    def __post_init__(self) -> None:
        if self.deadline_s is not None and not 0 < self.deadline_s <= MAX_DEADLINE_S:
            raise InvalidOperationError(
                f"{self.deadline_s!r} cannot be a deadline: give seconds, more than 0 and up to {MAX_DEADLINE_S:,}"
            )


PLAIN = Schedule()
"""Of a batch for which nothing was said."""
