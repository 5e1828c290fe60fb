"""Words: what a child is told of a target and of what makes its inputs, each in one text.

A strategy is told by its name, "module:name"; other inputs by "inputs: " and the word of the operation. No name of a
Python object holds a space, so neither can be taken for the other.
"""

from __future__ import annotations

from fuzzfarm_shared.inputs import Inputs, parse_inputs
from fuzzfarm_shared.operations import FuzzOperation

INPUTS = "inputs: "


def strategy_word(strategy: str | None, inputs: str | None) -> str | None:
    """Return what tells a child how inputs are made; None: as the target itself says.

    Args:
        strategy: the name of a strategy, or None.
        inputs: the word of an operation, or None.
    """
    return strategy if inputs is None else f"{INPUTS}{inputs}"


def told_inputs(word: str) -> Inputs | None:
    """Return the inputs that a word tells, or None when it names a strategy."""
    return parse_inputs(word.removeprefix(INPUTS)) if word.startswith(INPUTS) else None


def is_name(word: str) -> bool:
    """Return whether a word names something that is imported."""
    return not word.startswith(INPUTS)


def as_told(operation: FuzzOperation) -> FuzzOperation:
    """Return an operation whose strategy is the word that children are told; one that has it stays as it is."""
    word = strategy_word(operation.strategy, operation.inputs)
    return operation if word == operation.strategy else operation.model_copy(update={"strategy": word})
