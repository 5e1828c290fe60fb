"""Inputs: the one word that says what is generated for a callable without type hints, or for a command.

    bytes             bytes of any length
    text              text of any characters
    regex:PATTERN     text that a regular expression matches as a whole
    seeds:FOLDER      a file of a folder on the worker, mutated
    schema:JSON       what a JSON Schema, written out, allows

Nothing is compiled or opened here: a pattern or a schema of somebody else is looked into only in a child.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_INPUTS_CHARS = 65_536
"""Longest word: it travels with each finding, and is a schema of some hundred fields."""


class InputsKind(StrEnum):
    """What an input is made from."""

    BYTES = "bytes"
    TEXT = "text"
    REGEX = "regex"
    SEEDS = "seeds"
    SCHEMA = "schema"


_ARGUMENT = {InputsKind.REGEX: "PATTERN", InputsKind.SEEDS: "FOLDER", InputsKind.SCHEMA: "JSON"}
_FORMS = ", ".join(f"{kind}:{_ARGUMENT[kind]}" if kind in _ARGUMENT else str(kind) for kind in InputsKind)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is generated.

    Attributes:
        kind: what from.
        argument: the pattern, the folder or the schema; "" where there is none.
    """

    kind: InputsKind
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.argument}" if self.argument else str(self.kind)

    @property
    def schema(self) -> Any:
        """The schema, read."""
        return json.loads(self.argument)


def parse_inputs(word: str) -> Inputs:
    """Return what a word stands for.

    Raises:
        ValueError: for a word that is none of them; the message says what to write.
    """
    name, _, argument = word.partition(":")
    if name not in set(InputsKind) or (name in _ARGUMENT) != (":" in word):
        raise ValueError(f"{word[:80]!r} says nothing that can be generated: write one of {_FORMS}")
    inputs = Inputs(InputsKind(name), argument)
    if inputs.kind in _ARGUMENT and not argument:
        raise ValueError(f"there is no {_ARGUMENT[inputs.kind]} in {word!r}: write {name}:{_ARGUMENT[inputs.kind]}")
    if inputs.kind is InputsKind.SEEDS and "\0" in argument:
        raise ValueError("a folder of seeds cannot contain a null character: remove it")
    if inputs.kind is InputsKind.SCHEMA:
        _check_schema(inputs)
    return inputs


def inputs_word(word: str) -> str:
    """Return a word that stands for inputs; raises as `parse_inputs`."""
    parse_inputs(word)
    return word


def _check_schema(inputs: Inputs) -> None:
    try:
        schema = inputs.schema
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"the schema is not JSON: {exc}") from exc
    if type(schema) not in {dict, bool}:
        raise ValueError(f"a schema is an object, true or false, not {type(schema).__name__}")
