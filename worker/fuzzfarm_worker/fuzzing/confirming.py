"""Confirming: a finding that is new to this worker is run again some times, so that people see whether it is flaky."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.repeats import Case, Repeat, run_again
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.fuzzing.signature import SIGXCPU

RUNS = 10
"""A failure that comes every second time passes none of them once in a thousand findings."""

BUDGET_S = 2.0
"""Seconds for one finding, as for making it smaller: enough for all runs of what does not hang."""

MAX_CONFIRMED = 10
"""Findings that one shard confirms, so that it is never held up for more than 20 s."""

MAX_REMEMBERED = 10_000

log = get_logger(__name__)


class Confirmer:
    """Runs new findings again.

    Args:
        nursery: where children come from.
    """

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._known: OrderedDict[str, None] = OrderedDict()

    async def confirm(
        self, operation: FuzzOperation, findings: Iterable[Finding], *, proceed: Callable[[], bool] = lambda: True
    ) -> list[Finding]:
        """Return the findings that are new here, with count 0, and with how often they failed when run again.

        What would take longer than its budget, or cannot be run here, is left out. Cancelling kills what runs.

        Args:
            operation: as children are told it.
            findings: of a shard that has ended.
            proceed: asked before each run; False ends it.
        """
        new = [found for found in findings if found.id not in self._known and _is_worth_it(found)]
        confirmed = []
        for finding in new[:MAX_CONFIRMED]:
            replays, failures = await self._runs(operation, finding, proceed)
            if replays:
                self._remember(finding.id)
                confirmed.append(replace(finding, count=0, replays=replays, replay_failures=failures))
        return confirmed

    async def _runs(self, operation: FuzzOperation, finding: Finding, proceed: Callable[[], bool]) -> tuple[int, int]:
        """Return how often it was run again, and how often it failed in the same way."""
        case, ends_at = _case_of(operation, finding), time.monotonic() + BUDGET_S
        repeats: list[Repeat] = []
        try:
            while len(repeats) < RUNS and time.monotonic() < ends_at and proceed():
                repeat = await run_again(self._nursery, case)
                if repeat.hung and finding.kind is not ErrorKind.TIMEOUT:
                    break  # of an overloaded host, which says nothing about this finding
                repeats.append(repeat)
        except (TargetError, RuntimeError) as exc:
            log.warning("a finding was not confirmed", finding=finding.id, target=finding.target, reason=str(exc))
        return len(repeats), sum(_is_same(finding, repeat) for repeat in repeats)

    def _remember(self, identifier: str) -> None:
        self._known[identifier] = None
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)


def _is_worth_it(finding: Finding) -> bool:
    """Whether a run of it ends soon, and only in its child: what killed workers may do so again."""
    hangs_for_long = finding.kind is ErrorKind.TIMEOUT and finding.example_timeout_s > BUDGET_S
    computes_for_long = finding.type == SIGXCPU and finding.limits.get("cpu_s", 0) > BUDGET_S
    return finding.kind is not ErrorKind.WORKER_LOST and not hangs_for_long and not computes_for_long


def _case_of(operation: FuzzOperation, finding: Finding) -> Case:
    return Case(
        target=Target.of(operation),
        restrictions=Restrictions.of(operation),
        timeout_s=operation.example_timeout_s,
        seed=finding.seed,
        index=finding.index,
        choices=finding.choices,
        python=finding.python,
        hypothesis=finding.hypothesis,
    )


def _is_same(finding: Finding, repeat: Repeat) -> bool:
    """Whether a run failed as the finding did; where a hang or a crash was caught depends on the moment."""
    failure = repeat.failure
    if failure is None:
        return False
    died = finding.kind in {ErrorKind.TIMEOUT, ErrorKind.KILLED}
    return bool(failure["signature"] == finding.signature or (died and failure["type"] == finding.type))
