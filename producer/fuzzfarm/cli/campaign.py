"""A fuzz campaign from the command line: targets become operations, operations findings, findings files."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fuzzfarm.batch import Batch
from fuzzfarm.cli import finding_files
from fuzzfarm.cli.finding_views import finding_line, finding_title
from fuzzfarm.cli.following import Follower
from fuzzfarm.cli.fuzz_process import MODULE_PATH, module_path
from fuzzfarm.cli.harvest import Ending, Harvest, Reason, keep, summarize
from fuzzfarm.cli.meter import meter_for
from fuzzfarm.cli.options import chosen_farm, farm_is_given, in_background
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.targets import Targets, find_targets, is_target
from fuzzfarm.cli.views import count
from fuzzfarm.farm import Farm
from fuzzfarm.fuzz_status import FuzzStatus
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import Outcome
from fuzzfarm_shared.schedule import Schedule

SMALLER_WITHIN_S = 8.0
"""How long a run that ends with a finding waits for it to be made smaller and run again."""


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
        runs: how often each target is fuzzed, each time with the next seed.
        until_finding: end with the first finding that was not known.
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
    runs: int = 1
    until_finding: bool = False


class EnoughError(Exception):
    """Ends a run that was to end with its first new finding."""


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
        self._known: set[str] = set()
        self._named: set[str] = set()
        self._wanted: str | None = None
        self._found_at = 0.0

    async def run(self) -> Ending:
        """Submit and follow the batch; Ctrl-C, or a finding that is enough, cancels it and keeps what it has found."""
        plan = self._plan
        if plan.until_finding:
            self._known = await self._known_findings()
        batch = await self._farm.submit(
            self._operations, plan.key, priority=plan.schedule.priority, deadline_s=plan.schedule.deadline_s
        )
        self._output.note(f"fuzzing {count(len(self._targets.roots), 'target')} as batch {batch.key}; Ctrl-C stops it")
        follower = Follower(self._farm, batch, meter_for(self._output), self._examples_total(), self._judge)
        reason = await self._follow(follower)
        if reason is not Reason.DONE:
            await self._stop(batch, follower)
        return Ending(self._harvest, batch.key, self._targets, reason)

    async def _follow(self, follower: Follower) -> Reason:
        reason = Reason.DONE
        try:
            try:
                await follower.follow(self._take)
            except* EnoughError:
                reason = Reason.FINDING
        except asyncio.CancelledError:
            _stay_alive()
            return Reason.INTERRUPTED
        return reason

    async def _known_findings(self) -> set[str]:
        """Return the ids of findings that are saved here, or kept by the farm that was given."""
        saved = {item.finding.id for item in finding_files.load_all()}
        kept = await self._farm.findings() if farm_is_given(self._plan.redis) else []
        return saved | {finding.id for finding in kept}

    def _judge(self, fuzz: FuzzStatus) -> None:
        """Name what was found since the last time, and end the run if it is to end with that."""
        for finding in fuzz.total.findings:
            if finding.id not in self._named and not self._plan.until_finding:
                self._output.note(f"found {finding_line(finding)}")
            self._named.add(finding.id)
        if self._plan.until_finding:
            self._end_if_wanted(fuzz)

    def _end_if_wanted(self, fuzz: FuzzStatus) -> None:
        """End the run with the first finding that was not known and fails again, when it is as small as it gets."""
        new = [finding for finding in fuzz.total.findings if finding.id not in self._known]
        if not new:
            return
        wanted = next((finding for finding in new if finding.id == self._wanted), new[0])
        if wanted.id != self._wanted:
            self._wanted, self._found_at = wanted.id, time.monotonic()
            self._output.note(f"found {finding_title(wanted)}; it is made smaller, then all stops")
        if wanted.replays and not wanted.replay_failures:
            self._known.add(wanted.id)
            self._output.note(f"it did not fail again in {count(wanted.replays, 'run')}, so the search goes on")
        # What was run again was made smaller before.
        elif wanted.replays or time.monotonic() - self._found_at > SMALLER_WITHIN_S:
            raise EnoughError

    async def _stop(self, batch: Batch, follower: Follower) -> None:
        self._output.note("stopping; Ctrl-C leaves at once")
        status = await follower.fuzzed.read_all() if follower.fuzzed is not None else FuzzStatus(batch.key)
        await batch.cancel()
        recorded = await batch.results()
        early = {key: one.result for key, one in status.operations.items()}
        self._harvest.results.update({**early, **recorded.results})
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
    async with in_background(_targets_of(plan, checked.target)) as looking:
        if not farm_is_given(plan.redis):
            os.environ[MODULE_PATH] = module_path(await _roots(plan, looking))  # for the workers that we start
        async with chosen_farm(plan.redis, plan.workers) as farm:
            targets = await looking
            if targets.skipped:
                output.note(f"skipped {count(len(targets.skipped), 'other')}, which are listed at the end")
            ending = await Campaign(farm, plan, targets, output).run()
    keep(ending)
    summarize(ending, output)
    return ending


async def _targets_of(plan: Plan, command: str) -> Targets:
    if plan.command:
        return Targets({command: None})
    return await find_targets(plan.names, supplied=plan.strategy is not None or plan.inputs is not None)


async def _roots(plan: Plan, looking: Awaitable[Targets]) -> list[str]:
    """Return the folders that targets are imported from; names that say their module have none, and need no wait."""
    if plan.command or all(map(is_target, plan.names)):
        return []
    return [root for root in (await looking).roots.values() if root is not None]


def make_operations(plan: Plan, targets: Sequence[str]) -> list[FuzzOperation]:
    """Return one fuzz operation for each target, or for the command, and run.

    Its key is the target, with the seed where there are several runs.
    """
    options = {name: value for name, value in plan.options.items() if value is not None}
    options |= {"strategy": plan.strategy, "inputs": plan.inputs}
    first = options.pop("seed", 0)
    driven = [{"command": [*plan.command]}] if plan.command else [{"target": target} for target in targets]
    seeds = range(first, first + plan.runs)
    operations = [FuzzOperation(seed=seed, **what, **options) for seed in seeds for what in driven]
    return [operation.model_copy(update={"key": _key(operation, plan.runs)}) for operation in operations]


def _key(operation: FuzzOperation, runs: int) -> str:
    return operation.target if runs == 1 else f"{operation.target} seed {operation.seed}"
