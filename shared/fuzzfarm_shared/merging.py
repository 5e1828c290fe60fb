"""Merging: the results of shards, and of parts of one, become the result of the whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fuzzfarm_shared.outcomes import MAX_HOSTS, Finding, FuzzResult

RANKED_CHARS = 64
"""Beginning of an example that decides between two of the same length."""

_LAST = 2**64 - 1
"""Behind every length and index: it has as many digits."""


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
        children_replaced=sum(part.children_replaced for part in parts),
    )


def combine(one: Finding, other: Finding) -> Finding:
    """Return two sightings of one finding as one: the better example, counts added, first and last seen, hosts."""
    return replace(
        min(one, other, key=rank),
        count=one.count + other.count,
        first_seen=min(one.first_seen, other.first_seen),
        last_seen=max(one.last_seen, other.last_seen),
        hosts=tuple(dict.fromkeys([*one.hosts, *other.hosts]))[:MAX_HOSTS],
    )


def rank(finding: Finding) -> str:
    """Return text that sorts sightings of a finding, the best example first.

    One that was examined is better than others: no text tells as well as the shrinker what is small. Then shortlex, as
    Hypothesis orders examples; one that its test lists has no choices, and a generated one is smaller. Only hexadecimal
    digits, because the server's scripts compare text by the server's locale.
    """
    choices = len(finding.choices) or _LAST
    index = _LAST if finding.index is None else finding.index
    start = finding.example[:RANKED_CHARS].encode("utf-8", "surrogatepass").hex()
    return f"{int(not finding.replays)}{choices:016x}{len(finding.example):016x}{start}{index:016x}"
