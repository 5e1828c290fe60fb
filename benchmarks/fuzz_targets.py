"""What benchmarks/fuzzing.py fuzzes."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import time
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st


@dataclasses.dataclass
class Point:
    x: int
    y: int
    name: str
    tags: list[int]


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
STRATEGIES: dict[str, Any] = {
    "integers": st.integers(),
    "text": st.text(),
    "lists": st.lists(st.integers()),
    "json": JSON,
    "dataclass": st.builds(Point, st.integers(), st.integers(), st.text(), st.lists(st.integers())),
}


@given(STRATEGIES["integers"])
def test_integers(value: int) -> None:
    """Do nothing."""


@example(0)
@given(STRATEGIES["integers"])
def test_written(value: int) -> None:
    """Do nothing."""


@given(STRATEGIES["text"])
def test_text(value: str) -> None:
    """Do nothing."""


@given(STRATEGIES["lists"])
def test_lists(value: list[int]) -> None:
    """Do nothing."""


@given(STRATEGIES["json"])
def test_json(value: Any) -> None:
    """Do nothing."""


@given(STRATEGIES["dataclass"])
def test_dataclass(value: Point) -> None:
    """Do nothing."""


def noop(_: int) -> None:
    """Do nothing."""


def spin(number: int) -> None:
    """Compute for a while, as a target that parses does."""
    total = 0
    for step in range(2_000):
        total += (number ^ step) & 0xFF


def exits(number: int) -> None:
    if number % 100 == 7:
        os._exit(3)


def segfaults(number: int) -> None:
    if number % 100 == 7:
        ctypes.string_at(0)


def takes_memory(number: int) -> None:
    if number % 100 == 7:
        _hold = b"x" * (1 << 40)


def hangs(number: int) -> None:
    if number % 100 == 7:
        time.sleep(3600)


def shallow(number: int) -> None:
    """Fail for most numbers."""
    assert number < 100
