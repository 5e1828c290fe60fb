"""A whole farm in a few numbers: its workers and its queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from fuzzfarm_shared.keys import Lane
from fuzzfarm_shared.reports import QueueReport, WorkerReport


@dataclass(frozen=True, slots=True)
class FarmGlance:
    """What a farm has and does at one moment.

    Attributes:
        workers: live worker processes.
        hosts: hosts that they run on.
        slots_used: operations that run.
        slots: operations that may run at once.
        waiting: chunks that wait for a worker.
        waiting_by_lane: the same by what they need.
        oldest_waiting_s: how long the oldest of them has waited; None when none waits.
        running: chunks that workers hold.
    """

    workers: int
    hosts: int
    slots_used: int
    slots: int
    waiting: int
    waiting_by_lane: dict[Lane, int]
    oldest_waiting_s: float | None
    running: int

    @classmethod
    def of(cls, reports: list[WorkerReport], queue: QueueReport) -> Self:
        """Return the sum of these reports."""
        return cls(
            workers=len(reports),
            hosts=len({report.host for report in reports}),
            slots_used=sum(report.running for report in reports),
            slots=sum(report.max_concurrency for report in reports),
            waiting=queue.waiting,
            waiting_by_lane=queue.waiting_by_lane,
            oldest_waiting_s=queue.age_s,
            running=queue.running,
        )
