"""Admission: whether a worker may run what a fuzz operation names, with its paths as they are on this host."""

from __future__ import annotations

from fuzzfarm_shared.inputs import Inputs, InputsKind, parse_inputs
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_worker.allowlist import AllowList
from fuzzfarm_worker.fuzzing.words import as_told


def admitted(operation: FuzzOperation, allowed: AllowList) -> FuzzOperation:
    """Return the operation as children here are told it; nothing of it is imported or opened.

    Raises:
        TargetError: for a target, a program, a strategy or a folder that is not allowed on this worker.
    """
    if operation.command is None:
        allowed.check_target(operation.target)
    else:
        program, *arguments = operation.command
        operation = operation.model_copy(update={"command": [allowed.program(program), *arguments]})
    if operation.strategy is not None:
        allowed.check_target(operation.strategy)
    if operation.inputs is not None:
        operation = operation.model_copy(update={"inputs": _on_this_host(operation.inputs, allowed)})
    return as_told(operation)


def _on_this_host(word: str, allowed: AllowList) -> str:
    inputs = parse_inputs(word)
    return str(Inputs(inputs.kind, allowed.folder(inputs.argument))) if inputs.kind is InputsKind.SEEDS else word
