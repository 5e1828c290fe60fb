import asyncio
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[4] / "benchmarks")
FAILURES = 3
"""Of each bug; the benchmark has 20."""


def test_of_planted_bugs_one_bug_is_one_finding_and_two_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import signatures

    found = asyncio.run(signatures.all_signatures(FAILURES))
    assert len(found) >= 10
    assert {len(marks) for marks in found.values()} == {FAILURES}
    precision, recall = signatures.precision_and_recall(found)
    assert precision >= signatures.BAR, signatures.detail(found)
    assert recall >= signatures.BAR, signatures.detail(found)


def test_precision_and_recall_are_counted_by_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import signatures

    merged = {"one": ["x", "x"], "other": ["x", "x"]}
    assert signatures.precision_and_recall(merged) == (2 / 6, 1.0)
    assert signatures.detail(merged) == "split: none; merged: one and other"
    split = {"one": ["x", "x", "y"]}
    assert signatures.precision_and_recall(split) == (1.0, 1 / 3)
    assert signatures.detail(split) == "split: one into 2; merged: none"
