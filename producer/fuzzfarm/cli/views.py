"""How outcomes, batches and workers read for people."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from fuzzfarm.cli.glance import FarmGlance
from fuzzfarm.cli.output import table
from fuzzfarm.cli.printable import shortened
from fuzzfarm_shared.outcomes import (
    BatchStatus,
    FuzzResult,
    OperationError,
    Outcome,
    SubprocessResult,
)
from fuzzfarm_shared.reports import WorkerReport

VALUE_CHARS = 200
"""Values are shown up to here; --json shows all."""

MESSAGE_CHARS = 500


def count(number: int, word: str) -> str:
    """Return "1 finding", "2 findings"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Return a number of bytes in the largest unit that keeps it above one."""
    amount = float(number)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TB"


def age(since: float, now: float | None = None) -> str:
    """Return how long ago `since` (seconds since the epoch) was, in whole seconds."""
    return seconds((now or time.time()) - since)


def seconds(number: float) -> str:
    """Return a length of time as hours, minutes and whole seconds."""
    return str(timedelta(seconds=max(0, round(number))))


def percent(share: float | None) -> str:
    """Return a share in whole percent; nothing is known of None."""
    return "-" if share is None else f"{share:.0%}"


def value_text(value: Any) -> str:
    """Return a result in one line."""
    if isinstance(value, FuzzResult):
        return f"{count(value.examples, 'example')}, {count(len(value.findings), 'finding')}"
    if isinstance(value, SubprocessResult):
        ending = value.signal or f"exit code {value.exit_code}"
        return f"{ending}, {size(value.stdout_bytes + value.stderr_bytes)} of output"
    return shortened(repr(value), VALUE_CHARS)


def error_text(error: OperationError) -> str:
    """Return an error in one line."""
    return shortened(str(error), MESSAGE_CHARS)


def outcome_text(outcome: Outcome) -> str:
    """Return an outcome in one line."""
    if outcome.error is not None:
        return f"FAILED  {shortened(outcome.key, VALUE_CHARS)}  {error_text(outcome.error)}"
    return f"ok      {shortened(outcome.key, VALUE_CHARS)}  {value_text(outcome.value)}"


def is_clean(outcome: Outcome) -> bool:
    """Return whether an outcome is neither an error, nor a finding."""
    return outcome.ok and not (isinstance(outcome.value, FuzzResult) and outcome.value.findings)


def batch_line(status: BatchStatus) -> str:
    """Return the counters of a batch in one sentence."""
    parts = [f"{status.succeeded:,} succeeded", f"{status.failed:,} failed"]
    if status.cancelled:
        parts.append(f"{status.cancelled:,} cancelled")
    if status.pending:
        parts.append(f"{status.pending:,} pending")
    return f"batch {status.key}: {status.state.value}, {count(status.total, 'operation')}: {', '.join(parts)}"


def batch_table(statuses: list[BatchStatus]) -> str:
    """Return one row for each batch."""
    header = ["KEY", "STATE", "TOTAL", "SUCCEEDED", "FAILED", "CANCELLED", "PENDING", "EXAMPLES", "AGE"]
    counters = ("total", "succeeded", "failed", "cancelled", "pending", "examples_done")
    rows = [
        [status.key, status.state.value, *(f"{getattr(status, name):,}" for name in counters), age(status.created_at)]
        for status in statuses
    ]
    return table(header, rows)


def worker_table(reports: list[WorkerReport]) -> str:
    """Return one row for each worker."""
    header = ["HOST", "PID", "VERSION", "LOAD", "MEMORY", "FREE", "SLOTS", "CHUNKS", "DONE", "UP", "HEARTBEAT"]
    rows = [
        [
            report.host,
            str(report.pid),
            report.version,
            f"{report.load:.2f}",
            size(report.memory_bytes),
            percent(report.memory_free) + (" low" if report.under_pressure else ""),
            f"{report.running:,}/{report.max_concurrency:,}",
            f"{report.chunks:,}",
            f"{report.operations_done:,}",
            age(report.started_at, report.reported_at),
            f"{seconds(report.heartbeat_age_s)} ago",
        ]
        for report in reports
    ]
    return table(header, rows)


def farm_line(glance: FarmGlance) -> str:
    """Return what is on a farm in one line."""
    lanes = ", ".join(f"{lane.value} {depth:,}" for lane, depth in glance.waiting_by_lane.items())
    waiting = f"{count(glance.waiting, 'chunk')} waiting ({lanes})"
    if glance.oldest_waiting_s is not None:
        waiting += f", the oldest for {seconds(glance.oldest_waiting_s)}"
    return (
        f"{count(glance.workers, 'worker')} on {count(glance.hosts, 'host')}, "
        f"{glance.slots_used:,} of {count(glance.slots, 'slot')} used; {waiting}; {glance.running:,} running"
    )
