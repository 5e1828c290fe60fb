"""Hypothesis strategies for what may travel, and comparison of what arrives."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from typing import Any

from hypothesis import strategies as st

from fuzzfarm_shared.outcomes import ErrorKind, Finding, FuzzResult, OperationError, SubprocessResult

any_text = st.text(st.characters())  # lone surrogates too
numbers = st.one_of(st.integers(), st.integers(-(2**200), 2**200), st.floats())
zones = st.one_of(
    st.none(), st.timedeltas(dt.timedelta(hours=-23, minutes=-59), dt.timedelta(hours=23)).map(dt.timezone)
)
errors = st.builds(OperationError, st.sampled_from(ErrorKind), any_text, any_text, st.none() | any_text)
findings = st.builds(
    Finding,
    **{
        field.name: {"str": any_text, "int": st.integers(0, 2**63), "float": st.floats(allow_nan=False)}.get(
            str(field.type), st.none()
        )
        for field in dataclasses.fields(Finding)
        if field.name not in {"kind", "choices"}
    },
    kind=st.sampled_from(ErrorKind),
    choices=st.binary(),
)
results = st.one_of(
    errors,
    findings,
    st.builds(
        SubprocessResult,
        exit_code=st.integers(-64, 255),
        stdout=any_text | st.binary(),
        stderr=any_text,
        stdout_bytes=st.integers(0),
        stderr_bytes=st.integers(0),
        truncated=st.booleans(),
        duration_s=st.floats(0, 1e6),
    ),
    st.builds(
        FuzzResult,
        examples=st.integers(0, 2**52),
        distinct_examples=st.integers(0, 2**52),
        invalid_examples=st.integers(0, 2**52),
        duration_s=st.floats(0, 1e6),
        executions_per_s=st.floats(0, 1e6),
        seed=st.integers(0, 2**63 - 1),
        findings=st.lists(findings, max_size=2),
    ),
)
hashable = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        numbers,
        any_text,
        st.binary(),
        st.decimals().filter(lambda number: not number.is_snan()),  # cannot be hashed
        st.complex_numbers(),
        st.uuids(),
        st.dates(),
        st.times(timezones=zones),
        st.datetimes(timezones=zones),
        st.timedeltas(),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
values = st.recursive(
    hashable | results,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.sets(hashable, max_size=4)
    ),
    max_leaves=12,
)
"""Values of all documented types, nested."""


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in type and content; NaN equals NaN, and -0.0 differs from 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, (set, frozenset)):
        return as_text(one) == as_text(other)
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return as_text(one) == as_text(other)


def as_text(value: Any) -> str:
    """A value as text that does not depend on the order of sets; NaN, which equals nothing, is in it too."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}{sorted(map(as_text, value))}"
    if isinstance(value, tuple):
        return f"tuple{list(map(as_text, value))}"
    return f"{type(value).__name__} {value!r}"


def mutations(encoded: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Encoded things with one stretch of bytes replaced, removed or added."""

    def mutate(parts: tuple[bytes, int, int, bytes]) -> bytes:
        raw, place, removed, added = parts
        place %= len(raw) + 1
        return raw[:place] + added + raw[place + removed :]

    return st.tuples(encoded, st.integers(0, 10_000), st.integers(0, 8), st.binary(max_size=8)).map(mutate)
