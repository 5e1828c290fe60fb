"""Words: what a child is told of a target and of what makes its inputs, each in one text.

A target and a strategy are told by their names, "module:name"; a command by "a program: " and JSON, and other inputs by
"inputs: " and the word of the operation. No name of a Python object holds a space, so neither can be taken for another.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

from fuzzfarm_shared.inputs import Inputs, parse_inputs
from fuzzfarm_shared.operations import FuzzOperation

INPUTS = "inputs: "
PROGRAM = "a program: "


@dataclass(frozen=True, slots=True)
class Program:
    """A command as a target.

    Attributes:
        name: of the target.
        command: the program, by its full path, and its arguments.
        crash_exit_codes: exit codes that are failures.
        input: what it is given once; None: what is generated.
    """

    name: str
    command: Sequence[str]
    crash_exit_codes: Sequence[int] = ()
    input: bytes | None = None

    @property
    def word(self) -> str:
        """What tells it."""
        given = None if self.input is None else base64.b64encode(self.input).decode("ascii")
        return PROGRAM + json.dumps([self.name, [*self.command], [*self.crash_exit_codes], given])


def told_program(word: str) -> Program | None:
    """Return the program that a word tells, or None when it names a target."""
    if not word.startswith(PROGRAM):
        return None
    name, command, codes, given = json.loads(word.removeprefix(PROGRAM))
    return Program(name, command, codes, None if given is None else base64.b64decode(given))


def target_of(word: str) -> str:
    """Return the name of the target that a word tells."""
    program = told_program(word)
    return word if program is None else program.name


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
    return not word.startswith((INPUTS, PROGRAM))


def as_told(operation: FuzzOperation) -> FuzzOperation:
    """Return an operation whose target and strategy are the words that children are told; doing it twice is no harm."""
    told = {"strategy": strategy_word(operation.strategy, operation.inputs)}
    if operation.command is not None and is_name(operation.target):
        told["target"] = Program(operation.target, operation.command, operation.crash_exit_codes).word
    changes = {name: word for name, word in told.items() if word != getattr(operation, name)}
    return operation.model_copy(update=changes) if changes else operation
