"""Merging: the results of shards, and of parts of one, become the result of the whole."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace

from fuzzfarm_shared.outcomes import Finding, FuzzResult


def merge(results: Iterable[FuzzResult]) -> FuzzResult:
    """Return one result for all: sums, each finding once with its smallest example.

    Order does not matter. Nothing at all merges to a result with no examples and seed 0.
    """
    parts = list(results)
    findings: dict[str, Finding] = {}
    for part in parts:
        for finding in part.findings:
            known = findings.get(finding.id)
            findings[finding.id] = finding if known is None else combine(known, finding)
    examples = sum(part.examples for part in parts)
    duration_s = sum(part.duration_s for part in parts)
    return FuzzResult(
        examples=examples,
        distinct_examples=sum(part.distinct_examples for part in parts),
        invalid_examples=sum(part.invalid_examples for part in parts),
        duration_s=duration_s,
        executions_per_s=examples / duration_s if duration_s else 0.0,
        seed=parts[0].seed if parts else 0,
        findings=sorted(findings.values(), key=lambda finding: (finding.first_seen, finding.id)),
    )


def combine(one: Finding, other: Finding) -> Finding:
    """Return two sightings of one finding as one: the smaller example, counts added, first and last seen."""
    return replace(
        min(one, other, key=_size),
        count=one.count + other.count,
        first_seen=min(one.first_seen, other.first_seen),
        last_seen=max(one.last_seen, other.last_seen),
    )


def _size(finding: Finding) -> tuple[int, int, str, int]:
    # Shortlex, as Hypothesis orders examples; one that its test lists has no choices, and a generated one is smaller.
    choices = len(finding.choices) or sys.maxsize
    index = sys.maxsize if finding.index is None else finding.index
    return choices, len(finding.example), finding.example, index
