"""A fuzz campaign from the command line: targets become operations, operations findings, findings files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fuzzfarm.batch import Batch
from fuzzfarm.cli.early_findings import EarlyFindings
from fuzzfarm.cli.failures import ExitCode
from fuzzfarm.cli.finding_files import FOLDER, SavedFinding, save
from fuzzfarm.cli.finding_views import show_finding
from fuzzfarm.cli.following import Follower
from fuzzfarm.cli.fuzz_process import MODULE_PATH, module_path
from fuzzfarm.cli.meter import meter_for
from fuzzfarm.cli.options import chosen_farm, farm_is_given
from fuzzfarm.cli.output import Output, table
from fuzzfarm.cli.targets import Targets, find_targets
from fuzzfarm.cli.views import count, error_text
from fuzzfarm.farm import Farm
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding, FuzzResult, OperationError, Outcome
from fuzzfarm_shared.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Plan:
    """What to fuzz, and how.

    Attributes:
        names: targets, modules, files and folders, as they were typed.
        options: fields of `FuzzOperation` that hold for every target; None: the default.
        strategy: strategy for all of them, or None.
        inputs: the word that says what is generated for all of them, or None.
        command: a command to fuzz instead of names, or None.
        redis: the farm's server, or None.
        workers: worker processes of an embedded farm, or None.
        key: key of the batch, or None.
        schedule: of the batch.
    """

    names: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)
    strategy: str | None = None
    inputs: str | None = None
    command: Sequence[str] | None = None
    redis: str | None = None
    workers: int | None = None
    key: str | None = None
    schedule: Schedule = field(default_factory=Schedule)


@dataclass(slots=True)
class Harvest:
    """What a campaign has brought so far."""

    results: dict[str, FuzzResult] = field(default_factory=dict)
    errors: dict[str, OperationError] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        """Examples that were run."""
        return sum(result.examples for result in self.results.values())

    @property
    def findings(self) -> dict[str, list[Finding]]:
        """Findings by target."""
        return {key: result.findings for key, result in self.results.items() if result.findings}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a campaign ended."""

    harvest: Harvest
    batch: str
    targets: Targets
    interrupted: bool

    @property
    def findings(self) -> list[Finding]:
        """Each finding once, the most frequent first."""
        found = {finding.id: finding for findings in self.harvest.findings.values() for finding in findings}
        return sorted(found.values(), key=lambda finding: (-finding.count, finding.id))

    @property
    def failed(self) -> dict[str, OperationError]:
        """Targets that could not be fuzzed; what Ctrl-C cancelled is none."""
        return {key: error for key, error in self.harvest.errors.items() if error.kind is not ErrorKind.CANCELLED}

    @property
    def exit_code(self) -> ExitCode:
        """Findings or failures first, then Ctrl-C."""
        if self.harvest.findings or self.failed:
            return ExitCode.FAILURES
        return ExitCode.INTERRUPTED if self.interrupted else ExitCode.CLEAN


class Campaign:
    """One batch of fuzz operations, followed to its end.

    Args:
        farm: where it runs.
        plan: what to fuzz.
        targets: what was found.
        output: where findings are shown.
    """

    def __init__(self, farm: Farm, plan: Plan, targets: Targets, output: Output) -> None:
        self._farm = farm
        self._plan = plan
        self._targets = targets
        self._output = output
        self._operations = make_operations(plan, list(targets.roots))
        self._harvest = Harvest()

    async def run(self) -> Ending:
        """Submit and follow the batch; Ctrl-C cancels it and keeps what it has found."""
        plan = self._plan
        batch = await self._farm.submit(
            self._operations, plan.key, priority=plan.schedule.priority, deadline_s=plan.schedule.deadline_s
        )
        self._output.note(f"fuzzing {count(len(self._operations), 'target')} as batch {batch.key}; Ctrl-C stops it")
        early = EarlyFindings(batch, list(self._targets.roots))
        follower = Follower(self._farm, batch, meter_for(self._output), self._examples_total(), early.read)
        interrupted = False
        try:
            await follower.follow(self._take)
        except asyncio.CancelledError:
            interrupted = True
            _stay_alive()
            await self._stop(batch, early)
        return Ending(self._harvest, batch.key, self._targets, interrupted)

    async def _stop(self, batch: Batch, early: EarlyFindings) -> None:
        self._output.note("stopping; a second Ctrl-C leaves at once")
        await early.read_all()
        await batch.cancel()
        recorded = await batch.results()
        self._harvest.results.update({**early.results, **recorded.results})
        self._harvest.errors.update(recorded.errors)

    def _take(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._harvest.errors[outcome.key] = outcome.error
        else:
            self._harvest.results[outcome.key] = outcome.value

    def _examples_total(self) -> int | None:
        budgets = [operation.examples for operation in self._operations]
        return None if None in budgets else sum(filter(None, budgets))


def _stay_alive() -> None:
    """Take back the cancellation of this task by Ctrl-C: there is something to save."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


async def fuzz(plan: Plan, output: Output) -> Ending:
    """Run a campaign to its end, or to Ctrl-C, showing and saving what it finds.

    Raises:
        UsageError: when nothing can be fuzzed.
        FarmUnreachableError: when the farm does not answer.
    """
    [checked, *_] = make_operations(plan, ["checked:first"])  # a bad option is an error before anything is started
    supplied = plan.strategy is not None or plan.inputs is not None
    targets = Targets({checked.target: None}) if plan.command else await find_targets(plan.names, supplied=supplied)
    if targets.skipped:
        output.note(f"skipped {count(len(targets.skipped), 'other')}, which are listed at the end")
    if not farm_is_given(plan.redis):
        os.environ[MODULE_PATH] = module_path(filter(None, targets.roots.values()))  # for the workers that we start
    async with chosen_farm(plan.redis, plan.workers) as farm:
        ending = await Campaign(farm, plan, targets, output).run()
    keep(ending)
    summarize(ending, output)
    return ending


def make_operations(plan: Plan, targets: Sequence[str]) -> list[FuzzOperation]:
    """Return one fuzz operation for each target, or for the command, with the target as its key."""
    options = {name: value for name, value in plan.options.items() if value is not None}
    options |= {"strategy": plan.strategy, "inputs": plan.inputs}
    if plan.command:
        command = FuzzOperation(command=[*plan.command], **options)
        return [command.model_copy(update={"key": command.target})]
    return [FuzzOperation(key=target, target=target, **options) for target in targets]


def keep(ending: Ending) -> None:
    """Save all findings, each with what its replay needs."""
    for key, findings in ending.harvest.findings.items():
        for finding in findings:
            save(SavedFinding(finding, ending.targets.roots.get(key)))


def summarize(ending: Ending, output: Output) -> None:
    """Write how a campaign ended: the JSON document, or findings, failures and sums for people."""
    harvest, findings = ending.harvest, ending.findings
    output.record(
        {
            "batch": ending.batch,
            "examples": harvest.examples,
            "interrupted": ending.interrupted,
            "findings": findings,
            "errors": harvest.errors,
            "skipped": ending.targets.skipped,
        }
    )
    for finding in findings:
        show_finding(output, finding)
    for key, error in ending.failed.items():
        output.say(f"FAILED  {key}  {error_text(error)}", "red")
    if ending.targets.skipped:
        output.say(table(["SKIPPED", "WHY"], ending.targets.skipped.items()))
    output.say(f"{count(harvest.examples, 'example')}, {count(len(findings), 'finding')}")
    if findings:
        output.note(f"saved in {FOLDER}; run one again with `fuzzfarm replay ID`")
