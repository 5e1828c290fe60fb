"""Shrinking: a finding gets the smallest example that is found within a few seconds, in a child of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding
from fuzzfarm_worker.fuzzing.driving import TICK_S
from fuzzfarm_worker.fuzzing.interpreter import Interpreter, raise_if_broken
from fuzzfarm_worker.fuzzing.nursery import Nursery
from fuzzfarm_worker.fuzzing.recorder import Cell
from fuzzfarm_worker.fuzzing.repeats import Case, describe, run_again
from fuzzfarm_worker.fuzzing.signature import SIGXCPU

BUDGET_S = 2.0
"""Seconds for one finding; most are done in a tenth of it."""

SHRINKABLE = {ErrorKind.EXCEPTION, ErrorKind.MEMORY, ErrorKind.KILLED}
"""Not hangs, nor what uses up its CPU seconds: each run takes all of that; nor what killed workers."""

NS = 1_000_000_000


async def shrink(
    nursery: Nursery,
    operation: FuzzOperation,
    finding: Finding,
    *,
    proceed: Callable[[], bool] = lambda: True,
    budget_s: float = BUDGET_S,
) -> Finding:
    """Return the finding with a smaller example, or as it is where none is found. Cancelling kills what runs.

    Args:
        nursery: where children come from.
        operation: as children are told it.
        finding: what is made smaller.
        proceed: asked many times a second; False ends it with what there is by then.
        budget_s: seconds for all of it.

    Raises:
        TargetError: when the target cannot be fuzzed here.
        RuntimeError: when there is no child to run it.
    """
    if finding.kind not in SHRINKABLE or finding.type == SIGXCPU or not finding.choices:
        return finding
    case, kills = Case.of(operation, finding), _kills(finding)
    child = await nursery.child(case.target, case.restrictions)
    try:
        child.begin_shrinking(
            seed=finding.seed,
            choices=finding.choices,
            mark=finding.type if kills else finding.signature,
            apart=kills or operation.stateless,
            budget_s=budget_s,
            stateless=False,
        )
        smallest = await _smallest(child, finding.choices, operation.example_timeout_s, proceed)
    finally:
        await child.close()
    return await _with_choices(nursery, case, finding, smallest)


def _kills(finding: Finding) -> bool:
    """Whether its example ends the child that runs it; not where that is a command, whose child tells of it."""
    return finding.kind is ErrorKind.KILLED and not finding.command


async def _smallest(child: Interpreter, choices: bytes, example_timeout_s: float, proceed: Callable[[], bool]) -> bytes:
    """Return the last choices that the child tells before it is done, or ends, or hangs."""
    while True:
        dead = child.dead
        while (message := child.channel.pop()) is not None:
            match raise_if_broken(message):
                case ["smaller", bytes(choices)]:
                    continue
                case _:
                    return choices
        if dead or _hangs(child, example_timeout_s) or not proceed():
            return choices
        await child.channel.wait(TICK_S)


def _hangs(child: Interpreter, example_timeout_s: float) -> bool:
    started = child.recorder.cells[Cell.STARTED]
    return bool(started) and time.monotonic_ns() - started > example_timeout_s * NS


async def _with_choices(nursery: Nursery, case: Case, finding: Finding, choices: bytes) -> Finding:
    """Return the finding with the example of other choices, if that fails in the same way once more."""
    if choices == finding.choices:
        return finding
    case = replace(case, index=None, choices=choices)
    repeat = await run_again(nursery, case)
    failure = repeat.failure
    if failure is None or failure["signature"] != finding.signature:
        return finding
    told = {**failure, "kind": ErrorKind(failure["kind"])}
    if _kills(finding):
        described = await describe(nursery, case)
        if described is None:
            return finding
        told["example"] = described["example"]
    return replace(finding, **told, python=repeat.python, hypothesis=repeat.hypothesis)
