"""Shrinking: a finding gets the smallest example that is found within a few seconds, in a child of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding
from fuzzfarm_worker.fuzzing.driving import TICK_S
from fuzzfarm_worker.fuzzing.interpreter import Interpreter, raise_if_broken
from fuzzfarm_worker.fuzzing.nursery import Nursery
from fuzzfarm_worker.fuzzing.repeats import Case, describe, run_again
from fuzzfarm_worker.fuzzing.signature import SIGXCPU

BUDGET_S = 2.0
"""Seconds for one finding; most are done in a tenth of it."""

GRACE_S = 0.5
"""How long a run may go on behind the budget before it is killed."""

SHRINKABLE = {ErrorKind.EXCEPTION, ErrorKind.MEMORY, ErrorKind.KILLED}
"""Not hangs, nor what killed workers."""

COSTLY = {SIGXCPU, "SIGKILL"}
"""Deaths that are not repeated: each uses up its CPU seconds, or the memory of the host."""


@dataclass(slots=True)
class _Shrinking:
    """One finding on its way.

    Attributes:
        finding: as it was found.
        case: its example.
        ends_at: when its budget is used up, on the monotonic clock.
        proceed: whether to go on.
        smallest: the choices of the smallest example so far.
    """

    finding: Finding
    case: Case
    ends_at: float
    proceed: Callable[[], bool]
    smallest: bytes

    @property
    def left_s(self) -> float:
        """Seconds of the budget."""
        return self.ends_at - time.monotonic()

    async def run(self, nursery: Nursery, *, apart: bool) -> bool:
        """Look for smaller examples in a fresh child; returns whether it came to its end, and did not die."""
        child = await nursery.child(self.case.target, self.case.restrictions)
        try:
            child.begin_shrinking(
                seed=self.finding.seed,
                choices=self.smallest,
                signature=self.finding.signature,
                budget_s=self.left_s,
                kills=_kills(self.finding),
                apart=apart,
            )
            return await self._follow(child)
        finally:
            await child.close()

    async def _follow(self, child: Interpreter) -> bool:
        while self.proceed() and self.left_s > -GRACE_S:
            dead = child.dead
            while (message := child.channel.pop()) is not None:
                match raise_if_broken(message):
                    case ["smaller", bytes(choices)]:
                        self.smallest = choices
                    case _:
                        return True
            if dead:
                return False
            child.bound_output()
            await child.channel.wait(TICK_S)
        return True


async def shrink(
    nursery: Nursery,
    operation: FuzzOperation,
    finding: Finding,
    *,
    proceed: Callable[[], bool] = lambda: True,
    budget_s: float = BUDGET_S,
) -> Finding:
    """Return the finding with a smaller example, or as it is where none is found. Cancelling kills what runs.

    Examples run in one child, and each in a fork of it where they may kill: those of a finding that does, and when a
    smaller one has killed the child.

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
    if finding.kind not in SHRINKABLE or finding.type in COSTLY or not finding.choices:
        return finding
    case = Case.of(operation, finding)
    shrinking = _Shrinking(finding, case, time.monotonic() + budget_s, proceed, finding.choices)
    for apart in dict.fromkeys((operation.stateless or _kills(finding), True)):
        if await shrinking.run(nursery, apart=apart) or shrinking.left_s <= 0:
            break
    return await _with_choices(nursery, case, finding, shrinking.smallest)


def _kills(finding: Finding) -> bool:
    """Whether its example ends the child that runs it; not where that is a command, whose child tells of it."""
    return finding.kind is ErrorKind.KILLED and not finding.command


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
