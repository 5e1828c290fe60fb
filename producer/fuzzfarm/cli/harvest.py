"""What a campaign has brought, and how it is kept and shown at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fuzzfarm.cli.failures import ExitCode
from fuzzfarm.cli.finding_files import FOLDER, SavedFinding, save
from fuzzfarm.cli.finding_views import show_finding
from fuzzfarm.cli.output import Output, table
from fuzzfarm.cli.targets import Targets
from fuzzfarm.cli.views import count, error_text
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import ErrorKind, FuzzResult, OperationError


class Reason(StrEnum):
    """Why a campaign ended."""

    DONE = "done"
    """All its operations have ended."""
    INTERRUPTED = "interrupted"
    """Ctrl-C."""
    FINDING = "finding"
    """It was to end with its first new finding."""


@dataclass(slots=True)
class Harvest:
    """What a campaign has brought so far, by the keys of its operations."""

    results: dict[str, FuzzResult] = field(default_factory=dict)
    errors: dict[str, OperationError] = field(default_factory=dict)

    @property
    def total(self) -> FuzzResult:
        """All results as one: each finding once."""
        return merge(self.results.values())


@dataclass(frozen=True, slots=True)
class Ending:
    """How a campaign ended."""

    harvest: Harvest
    batch: str
    targets: Targets
    reason: Reason

    @property
    def findings(self) -> list[SavedFinding]:
        """Each finding once, the most frequent first, with what its replay needs."""
        found = sorted(self.harvest.total.findings, key=lambda finding: (-finding.count, finding.id))
        return [SavedFinding(finding, self.targets.roots.get(finding.target)) for finding in found]

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.reason is Reason.INTERRUPTED

    @property
    def failed(self) -> dict[str, OperationError]:
        """Targets that could not be fuzzed; what was cancelled by us is none."""
        return {key: error for key, error in self.harvest.errors.items() if error.kind is not ErrorKind.CANCELLED}

    @property
    def exit_code(self) -> ExitCode:
        """Findings or failures first, then Ctrl-C."""
        if self.findings or self.failed:
            return ExitCode.FAILURES
        return ExitCode.INTERRUPTED if self.interrupted else ExitCode.CLEAN


def keep(ending: Ending) -> None:
    """Save all findings, each with what its replay needs."""
    for saved in ending.findings:
        save(saved)


def summarize(ending: Ending, output: Output) -> None:
    """Write how a campaign ended: the JSON document, or findings, failures and sums for people."""
    findings = [saved.finding for saved in ending.findings]
    output.record(_document(ending))
    for finding in findings:
        show_finding(output, finding)
    for key, error in ending.failed.items():
        output.say(f"FAILED  {key}  {error_text(error)}", "red")
    if ending.targets.skipped:
        output.say(table(["SKIPPED", "WHY"], ending.targets.skipped.items()))
    output.say(_sums(ending.harvest.total))
    if findings:
        output.note(f"saved in {FOLDER}; run one again with `fuzzfarm replay ID`")


def _sums(total: FuzzResult) -> str:
    parts = [f"{total.distinct_examples:,} distinct", f"{total.invalid_share:.0%} invalid"]
    if total.children_replaced:
        parts.append(f"{count(total.children_replaced, 'child')} replaced".replace("childs", "children"))
    found = count(len(total.findings), "finding")
    return f"{count(total.examples, 'example')}, {found} ({', '.join(parts)})"


def _document(ending: Ending) -> dict[str, Any]:
    return {
        "batch": ending.batch,
        "ended": ending.reason.value,
        "interrupted": ending.interrupted,
        **_numbers(ending.harvest.total),
        "targets": {key: _numbers(result) for key, result in ending.harvest.results.items()},
        "findings": [saved.finding for saved in ending.findings],
        "errors": ending.harvest.errors,
        "skipped": ending.targets.skipped,
    }


def _numbers(result: FuzzResult) -> dict[str, Any]:
    return {
        "examples": result.examples,
        "distinct_examples": result.distinct_examples,
        "invalid_examples": result.invalid_examples,
        "duration_s": result.duration_s,
        "executions_per_s": result.executions_per_s,
        "children_replaced": result.children_replaced,
        "finding_ids": [finding.id for finding in result.findings],
    }
