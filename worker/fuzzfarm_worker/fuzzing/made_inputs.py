"""Made inputs: the strategy behind the word of an operation that says what is generated."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fuzzfarm_shared.inputs import Inputs, InputsKind
from fuzzfarm_worker.fuzzing.json_schema import SchemaError, schema_strategy
from fuzzfarm_worker.fuzzing.seeds import mutated, seeds_in


def made_inputs(inputs: Inputs) -> SearchStrategy[Any]:
    """Return the strategy that makes such inputs.

    Raises:
        ValueError: when there can be none; the message says what to mend.
    """
    match inputs.kind:
        case InputsKind.BYTES:
            return st.binary()
        case InputsKind.TEXT:
            return st.text()
        case InputsKind.REGEX:
            return _matching(inputs.argument)
        case InputsKind.SEEDS:
            return _seeds(inputs.argument)
        case InputsKind.SCHEMA:
            return _allowed(inputs.schema)


def _allowed(schema: Any) -> SearchStrategy[Any]:
    try:
        return schema_strategy(schema)
    except SchemaError as exc:
        raise ValueError(f"the JSON Schema cannot be used: {exc}") from exc


def _matching(pattern: str) -> SearchStrategy[str]:
    try:
        return st.from_regex(re.compile(pattern), fullmatch=True)
    except (re.error, OverflowError, RecursionError) as exc:
        raise ValueError(f"{pattern[:80]!r} is no regular expression ({exc}): repair it") from exc


def _seeds(folder: str) -> SearchStrategy[bytes]:
    try:
        return mutated(seeds_in(folder))
    except OSError as exc:
        raise ValueError(f"cannot read the seeds in {folder!r} on this worker: {exc.strerror}") from exc
