"""Deaths: what a child that was killed by an example tells about the failure."""

from __future__ import annotations

from typing import Any

from fuzzfarm_shared.outcomes import ErrorKind
from fuzzfarm_worker.fuzzing import signature
from fuzzfarm_worker.fuzzing.interpreter import Death
from fuzzfarm_worker.fuzzing.words import target_of, told_program


def death_failure(target: str, death: Death, example_timeout_s: float, told: dict[str, Any] | None) -> dict[str, Any]:
    """Return a death as the failure that a child would have told.

    Args:
        target: the word that tells what was fuzzed.
        death: how the child ended.
        example_timeout_s: the limit that the example had.
        told: the example's source and choices, or None where generating it again kills too.
    """
    program = told_program(target)
    # The stack of the interpreter that waits for a command tells nothing of the command.
    stack, report = (death.stack, death.report) if program is None else ([], "")
    name = "hang" if death.hung else death.cause
    mark = signature.of_stack(name, stack)
    ended = f"the example ended its interpreter with {death.cause}"
    qualname = target.rpartition(":")[2]
    failure = {
        "id": signature.finding_id(target_of(target), mark),
        "kind": (ErrorKind.TIMEOUT if death.hung else ErrorKind.KILLED).value,
        "type": name,
        "message": f"still running after {example_timeout_s:g} s" if death.hung else ended,
        "location": signature.location(stack),
        "signature": mark,
        "example": told["example"] if told else f"{qualname}(...)  # generating it ends the interpreter",
        "index": death.index,
        "choices": told["choices"] if told else b"",
        "traceback": report,
        "output": death.output,
    }
    return {**failure, "input": told["input"]} if told and "input" in told else failure
