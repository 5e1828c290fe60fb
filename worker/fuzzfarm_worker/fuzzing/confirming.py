"""Confirming: the example of a finding is run again some times, so that people see whether it is flaky."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding
from fuzzfarm_worker.fuzzing.nursery import Nursery
from fuzzfarm_worker.fuzzing.repeats import Case, Repeat, run_again
from fuzzfarm_worker.fuzzing.signature import SIGXCPU

RUNS = 10
"""A failure that comes every second time passes none of them once in a thousand findings."""

BUDGET_S = 2.0
"""Seconds for one finding, as for making it smaller: enough for all runs of what does not hang."""


async def confirm(
    nursery: Nursery, operation: FuzzOperation, finding: Finding, *, proceed: Callable[[], bool] = lambda: True
) -> Finding:
    """Return the finding with how often it failed when it was run again; 0 runs where that takes too long.

    Cancelling kills what runs.

    Args:
        nursery: where children come from.
        operation: as children are told it.
        finding: what is run again.
        proceed: asked before each run; False ends it.

    Raises:
        TargetError: when the target cannot be fuzzed here.
        RuntimeError: when there is no child to run it.
    """
    case, ends_at = Case.of(operation, finding), time.monotonic() + BUDGET_S
    repeats: list[Repeat] = []
    while _is_worth_it(finding) and len(repeats) < RUNS and time.monotonic() < ends_at and proceed():
        limit_s = min(case.timeout_s, ends_at - time.monotonic())
        repeat = await run_again(nursery, replace(case, timeout_s=limit_s))
        if repeat.hung and (finding.kind is not ErrorKind.TIMEOUT or limit_s < case.timeout_s):
            break  # of an overloaded host, or of our budget, which says nothing about this finding
        repeats.append(repeat)
    return replace(finding, replays=len(repeats), replay_failures=sum(_is_same(finding, repeat) for repeat in repeats))


def _is_worth_it(finding: Finding) -> bool:
    """Whether a run of it ends soon, and only in its child: what killed workers may do so again."""
    hangs_for_long = finding.kind is ErrorKind.TIMEOUT and finding.example_timeout_s > BUDGET_S
    computes_for_long = finding.type == SIGXCPU and finding.limits.get("cpu_s", 0) > BUDGET_S
    return finding.kind is not ErrorKind.WORKER_LOST and not hangs_for_long and not computes_for_long


def _is_same(finding: Finding, repeat: Repeat) -> bool:
    """Whether a run failed as the finding did; where a hang or a crash was caught depends on the moment."""
    failure = repeat.failure
    if failure is None:
        return False
    died = finding.kind in {ErrorKind.TIMEOUT, ErrorKind.KILLED}
    return bool(failure["signature"] == finding.signature or (died and failure["type"] == finding.type))
