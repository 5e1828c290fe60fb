"""The live numbers of fuzz operations, as lines for people."""

from __future__ import annotations

from fuzzfarm.cli.output import table
from fuzzfarm.cli.printable import printable
from fuzzfarm.fuzz_status import FuzzStatus, OperationStatus
from fuzzfarm_shared.outcomes import FuzzResult

MOST_SHOWN = 12
"""Targets that fit below a bar on a terminal."""

MOST_KEY_CHARS = 50
"""Of the name of a target: its end says most."""

HEADER = ["TARGET", "EXAMPLES", "PER S", "DISTINCT", "INVALID", "EACH", "FINDINGS", "REPLACED"]


def fuzz_lines(status: FuzzStatus) -> list[str]:
    """Return a row for each target that runs, those with findings first, and one for all of them together."""
    running = [one for one in status.operations.values() if not one.ended]
    shown = sorted(running, key=lambda one: (-len(one.result.findings), -one.result.examples, one.key))[:MOST_SHOWN]
    rows = [_row(_clipped(one.key), one.result, one.examples_per_s) for one in shown]
    rows.append(_row(_all(status, running), status.total, status.examples_per_s))
    return [f"  {line}" for line in table(HEADER, rows).splitlines()]


def _all(status: FuzzStatus, running: list[OperationStatus]) -> str:
    ended, more = len(status.operations) - len(running), len(running) - MOST_SHOWN
    parts = [f"{more:,} more run"] if more > 0 else []
    parts += [f"{ended:,} ended"] if ended else []
    return f"all ({', '.join(parts)})" if parts else "all"


def _row(name: str, result: FuzzResult, per_s: float) -> list[str]:
    return [
        name,
        f"{result.examples:,}",
        f"{per_s:,.0f}",
        f"{result.distinct_examples:,}",
        f"{result.invalid_share:.0%}",
        short_time(result.example_s),
        f"{len(result.findings):,}",
        f"{result.children_replaced:,}",
    ]


def short_time(seconds: float) -> str:
    """Return a length of time with two or three digits."""
    for unit, factor in (("us", 1e6), ("ms", 1e3), ("s", 1.0)):
        if seconds * factor < 1000 or unit == "s":
            number = seconds * factor
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    raise AssertionError  # the last unit takes all


def _clipped(key: str) -> str:
    clean = printable(key)
    return clean if len(clean) <= MOST_KEY_CHARS else f"...{clean[3 - MOST_KEY_CHARS :]}"
