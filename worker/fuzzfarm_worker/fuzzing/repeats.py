"""Repeats: the example of a finding run once more, in a child that has run nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import Finding
from fuzzfarm_worker.fuzzing.deaths import death_failure
from fuzzfarm_worker.fuzzing.driving import DESCRIBE_EXTRA_S
from fuzzfarm_worker.fuzzing.interpreter import ChildLostError, Interpreter
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.restrictions import Restrictions


@dataclass(frozen=True, slots=True)
class Case:
    """An example that can be run again.

    Attributes:
        target: what to load.
        restrictions: what its child is held to.
        timeout_s: seconds that it gets.
        seed: with `index`, the example's address.
        index: None when only the choices tell the example.
        choices: encoded choices, or empty.
        python: version that found it.
        hypothesis: version that found it.
    """

    target: Target
    restrictions: Restrictions
    timeout_s: float
    seed: int
    index: int | None
    choices: bytes
    python: str
    hypothesis: str

    @classmethod
    def of(cls, operation: FuzzOperation, finding: Finding) -> Self:
        """Return the example of a finding.

        Args:
            operation: that found it, as children are told it.
            finding: what was found.
        """
        return cls(
            target=Target.of(operation),
            restrictions=Restrictions.of(operation),
            timeout_s=operation.example_timeout_s,
            seed=finding.seed,
            index=finding.index,
            choices=finding.choices,
            python=finding.python,
            hypothesis=finding.hypothesis,
        )


@dataclass(frozen=True, slots=True)
class Repeat:
    """What came of one more run.

    Attributes:
        failure: as a child tells it, or None when the example passed.
        hung: whether it took too long, and was killed.
        addressed: "index" or "choices": how the example was found again.
        python: version that ran it.
        hypothesis: version that ran it.
    """

    failure: dict[str, Any] | None
    hung: bool
    addressed: str
    python: str
    hypothesis: str


async def run_again(nursery: Nursery, case: Case) -> Repeat:
    """Run an example in a fresh child, which is gone at the end. Cancelling kills it.

    Raises:
        TargetError: when the target cannot be fuzzed here.
        ChildLostError: when there is no child to run it.
    """
    child = await nursery.child(case.target, case.restrictions)
    try:
        # By its address where that is good: choices of a target that draws while it runs end where its interpreter did.
        same_versions = (case.python, case.hypothesis) == (child.python, child.hypothesis)
        by_index = case.index is not None and (same_versions or not case.choices)
        index, choices = (case.index, b"") if by_index else (None, case.choices)
        try:
            failure, hung = await child.once(case.seed, index, choices, case.timeout_s), False
        except ChildLostError:
            failure, hung = await _killed_by(child, case)
        return Repeat(failure, hung, "index" if by_index else "choices", child.python, child.hypothesis)
    finally:
        await child.close()


async def describe(nursery: Nursery, case: Case) -> dict[str, Any] | None:
    """Return what tells an example, which is generated and not run; None where that ends its child, or hangs.

    Raises:
        TargetError: when the target cannot be fuzzed here.
        ChildLostError: when there is no child to generate it.
    """
    child = await nursery.child(case.target, case.restrictions)
    try:
        return await child.describe(case.seed, case.index, case.timeout_s + DESCRIBE_EXTRA_S, case.choices)
    finally:
        await child.close()


async def _killed_by(child: Interpreter, case: Case) -> tuple[dict[str, Any], bool]:
    """Return the failure of an example that killed its child, or hangs in it."""
    hung = not child.dead
    if hung:
        await child.dump_stack()
        child.kill()
    await child.exited()
    told = {"example": "", "choices": case.choices}
    failure = death_failure(case.target.target, child.death(hung=hung), case.timeout_s, told)
    return {**failure, "index": case.index}, hung
