"""What every benchmark needs: interleaved runs, medians, one table, and the same as JSON."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what was measured.
        figure: the median, with its unit.
        bar: what must be reached.
        reached: whether it was.
        detail: spread and parts of the figure.
    """

    what: str
    figure: str
    bar: str
    reached: bool
    detail: str = ""


def interleaved(rounds: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Run the measures in turn, so that a drift of the machine meets all of them; one list of figures for each."""
    figures: list[list[float]] = [[] for _ in measures]
    for _ in range(rounds):
        for place, measure in enumerate(measures):
            figures[place].append(measure())
    return figures


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of neighbouring runs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def spread(figures: Sequence[float], unit: str = "") -> str:
    """Return "median (min-max)"."""
    return f"{statistics.median(figures):,.4g} ({min(figures):,.4g}-{max(figures):,.4g}){unit}"


def report(title: str, rows: Sequence[Row]) -> None:
    """Print the table, or JSON with `--json`."""
    machine = f"{platform.machine()}, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    if "--json" in sys.argv:
        print(json.dumps({"title": title, "machine": machine, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    print(f"{title} ({machine})\n")
    print("| what | measured | bar | reached | detail |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.figure} | {row.bar} | {'ok' if row.reached else 'MISS'} | {row.detail} |")
