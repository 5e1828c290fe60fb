"""How a farm reads for people."""

from __future__ import annotations

from typing import Any

import pytest

from fuzzfarm.cli.glance import FarmGlance
from fuzzfarm.cli.views import farm_line, worker_table
from fuzzfarm_shared.keys import Lane
from fuzzfarm_shared.reports import QueueReport, WorkerReport


def report(**changes: Any) -> WorkerReport:
    fields = {
        "name": "apple-12-ab", "host": "apple", "pid": 12, "version": "1.2.3", "python": "3.11.1",
        "max_concurrency": 1_000, "running": 3, "chunks": 2, "operations_done": 12_345, "memory_bytes": 52 << 20,
        "load": 1.5, "started_at": 100.0, "reported_at": 3_761.0, "memory_free": 0.349, "heartbeat_age_s": 1.2,
    }  # fmt: skip
    return WorkerReport.model_validate({**fields, **changes})


def queue(waiting: int = 0, fuzz: int = 0, running: int = 0, age_s: float | None = None) -> QueueReport:
    lanes = {Lane.SLOTS: waiting - fuzz, Lane.FUZZ: fuzz}
    return QueueReport(waiting=waiting, waiting_by_lane=lanes, running=running, age_s=age_s)


def cells(reports: list[WorkerReport]) -> dict[str, str]:
    header, row = worker_table(reports).splitlines()
    return dict(zip(header.split(), row.replace(" ago", "_ago").replace(" MB", "_MB").split(), strict=True))


def test_a_worker_is_one_row_of_what_an_operator_asks_first() -> None:
    assert cells([report()]) == {
        "HOST": "apple", "PID": "12", "VERSION": "1.2.3", "LOAD": "1.50", "MEMORY": "52_MB", "FREE": "35%",
        "SLOTS": "3/1,000", "CHUNKS": "2", "DONE": "12,345", "UP": "1:01:01", "HEARTBEAT": "0:00:01_ago",
    }  # fmt: skip


def test_what_a_worker_does_not_know_of_its_memory_is_a_dash() -> None:
    assert cells([report(memory_free=None)])["FREE"] == "-"


def test_a_worker_that_is_short_of_memory_is_marked() -> None:
    assert " 4% low  " in worker_table([report(memory_free=0.04, under_pressure=True), report()])
    assert " low " not in worker_table([report(memory_free=0.04)])


@pytest.mark.parametrize(
    ("reports", "has", "waits", "waiting"),
    [
        ([], "0 workers on 0 hosts, 0 of 0 slots used", queue(), "0 chunks waiting (slots 0, fuzz 0); 0 running"),
        (
            [report(), report(pid=13, running=4), report(host="pear", max_concurrency=1)],
            "3 workers on 2 hosts, 10 of 2,001 slots used",
            queue(waiting=1_200, running=6, age_s=3_725.4),
            "1,200 chunks waiting (slots 1,200, fuzz 0), the oldest for 1:02:05; 6 running",
        ),
        (
            [report(max_concurrency=1, running=0)],
            "1 worker on 1 host, 0 of 1 slot used",
            queue(waiting=1, fuzz=1, age_s=0.2),
            "1 chunk waiting (slots 0, fuzz 1), the oldest for 0:00:00; 0 running",
        ),
    ],
    ids=["empty", "busy", "small"],
)
def test_a_farm_is_one_line(reports: list[WorkerReport], has: str, waits: QueueReport, waiting: str) -> None:
    assert farm_line(FarmGlance.of(reports, waits)) == f"{has}; {waiting}"
