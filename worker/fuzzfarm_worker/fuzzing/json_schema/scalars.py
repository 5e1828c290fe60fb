"""Scalars: numbers and text that a node allows.

Values are made in composites instead of by `map`, so that they are shown as what they are, and not as the call that
made them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from hypothesis import provisional
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fuzzfarm_worker.fuzzing.json_schema.nodes import Node
from fuzzfarm_worker.fuzzing.json_schema.validity import allows, exact

REPEATED = re.compile(r"\^?(?P<one>\[\^?\]?[^\]\\\[]*\]|\\[dws]|\.)(?P<count>[+*]|\{\d+(?:,\d*)?\})\$?")
"""A pattern of one kind of character: its count can be narrowed to the lengths that are allowed."""

COUNTS = {"+": (1, None), "*": (0, None)}


def integers(node: Node) -> SearchStrategy[int]:
    """Return a strategy of the integers that a node allows."""
    low, high = _limits(node)
    step = _step(node)
    first = None if low is None else math.ceil(low / step)
    last = None if high is None else math.floor(high / step)
    if first is not None and last is not None and first > last:
        return st.nothing()
    if step == 1:
        return _valid(node, st.integers(first, last))
    # A multiple of 2/3 is an integer every other time: the step of integers is the numerator.
    return _valid(node, _multiples(step, first, last, whole=True))


def numbers(node: Node) -> SearchStrategy[float]:
    """Return a strategy of all numbers that a node allows, integers first."""
    if node.every("multipleOf"):
        low, high = _limits(node, whole=False)
        step = _common_multiple([exact(of) for of in node.every("multipleOf")])
        first = None if low is None else math.ceil(low / step)
        last = None if high is None else math.floor(high / step)
        if first is not None and last is not None and first > last:
            return st.nothing()
        return _valid(node, _multiples(step, first, last, whole=False))
    return st.one_of(integers(node), _valid(node, _floats(node)))


def _floats(node: Node) -> SearchStrategy[float]:
    low, high = _limits(node, whole=False)
    least = None if low is None else _inwards(low, math.inf)
    most = None if high is None else _inwards(high, -math.inf)
    if least is not None and most is not None and least > most:
        return st.nothing()
    return st.floats(least, most, allow_nan=False, allow_infinity=False)


def _inwards(limit: Fraction, towards: float) -> float:
    number = float(limit)
    inside = number >= limit if towards > 0 else number <= limit
    return number if inside else math.nextafter(number, towards)


def _limits(node: Node, *, whole: bool = True) -> tuple[Fraction | None, Fraction | None]:
    """Return the least and the greatest number; where one itself is excluded, an integer more or less for integers."""
    above = [exact(limit) for limit in node.every("exclusiveMinimum")]
    below = [exact(limit) for limit in node.every("exclusiveMaximum")]
    if whole:
        above = [Fraction(math.floor(limit) + 1) for limit in above]
        below = [Fraction(math.ceil(limit) - 1) for limit in below]
    lows = [*above, *(exact(limit) for limit in node.every("minimum"))]
    highs = [*below, *(exact(limit) for limit in node.every("maximum"))]
    return max(lows, default=None), min(highs, default=None)


def _step(node: Node) -> Fraction:
    """Return the step between the integers that are multiples of what they must be multiples of."""
    return _common_multiple([Fraction(1), *map(exact, node.every("multipleOf"))])


def _common_multiple(numbers: list[Fraction]) -> Fraction:
    result = numbers[0]
    for number in numbers[1:]:
        numerator = math.lcm(result.numerator * number.denominator, number.numerator * result.denominator)
        result = Fraction(numerator, result.denominator * number.denominator)
    return result


@st.composite
def _multiples(draw: st.DrawFn, step: Fraction, first: int | None, last: int | None, *, whole: bool) -> float:
    multiple = step * draw(st.integers(first, last))
    return int(multiple) if whole or multiple.denominator == 1 else float(multiple)


def _valid(node: Node, strategy: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Return a strategy without what rounding, an excluded limit or a second pattern forbids."""
    parts = [{keyword: part[keyword] for keyword in _FILTERED & part.keys()} for part in node.parts]
    parts = [part for part in parts if part]
    if not parts:
        return strategy
    return strategy.filter(lambda value: all(allows(node.document, part, value) for part in parts))


_FILTERED = frozenset(
    ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern")
)


def texts(node: Node) -> SearchStrategy[str]:
    """Return a strategy of the texts that a node allows."""
    least, most = node.least("minLength"), node.most("maxLength")
    if most is not None and most < least:
        return st.nothing()
    if patterns := node.every("pattern"):
        return _valid(node, _matching(patterns[0], least, most))
    known = [FORMATS[name] for name in node.every("format") if name in FORMATS]
    return _valid(node, known[0]()) if known else st.text(min_size=least, max_size=most)


def _matching(pattern: str, least: int, most: int | None) -> SearchStrategy[str]:
    """Return a strategy of texts that a pattern is found in, most of them of the lengths that are allowed."""
    found = REPEATED.fullmatch(pattern)
    if found is not None and pattern.startswith("^") and pattern.endswith("$"):
        low, high = _count(found["count"])
        low, high = max(low, least), min((limit for limit in (high, most) if limit is not None), default=None)
        if high is None or low <= high:
            return st.from_regex(f"{found['one']}{{{low},{'' if high is None else high}}}", fullmatch=True)
    # In JSON Schema `$` is the end, and not a newline before it.
    ended = f"{pattern[:-1]}\\Z" if pattern.endswith("$") and not pattern.endswith("\\$") else pattern
    return st.from_regex(ended)


def _count(text: str) -> tuple[int, int | None]:
    if text in COUNTS:
        return COUNTS[text]
    low, comma, high = text[1:-1].partition(",")
    return int(low), (int(high) if high else None) if comma else int(low)


@st.composite
def _dates(draw: st.DrawFn) -> str:
    return draw(st.dates()).isoformat()


@st.composite
def _times(draw: st.DrawFn) -> str:
    return f"{draw(st.times()).isoformat()}{draw(ZONES)}"


@st.composite
def _moments(draw: st.DrawFn) -> str:
    return f"{draw(st.dates()).isoformat()}T{draw(st.times()).isoformat()}{draw(ZONES)}"


@st.composite
def _emails(draw: st.DrawFn) -> str:
    name, _, host = draw(st.emails()).rpartition("@")
    return f"{name}@{host}"


@st.composite
def _uris(draw: st.DrawFn) -> str:
    scheme, _, rest = draw(provisional.urls()).partition(":")
    return f"{scheme}:{rest}"


@st.composite
def _uuids(draw: st.DrawFn) -> str:
    return str(draw(st.uuids()))


@st.composite
def _addresses(draw: st.DrawFn, version: Any) -> str:
    return str(draw(st.ip_addresses(v=version)))


ZONES = st.sampled_from(("Z", "+00:00", "-00:00", "+14:00", "-12:30"))

FORMATS: dict[str, Callable[[], SearchStrategy[str]]] = {
    "date": _dates,
    "time": _times,
    "date-time": _moments,
    "email": _emails,
    "uri": _uris,
    "uuid": _uuids,
    "ipv4": lambda: _addresses(4),
    "ipv6": lambda: _addresses(6),
}
"""Formats that are made; every other one is an annotation."""

SCALARS: dict[str, Callable[[Node], SearchStrategy[Any]]] = {
    "null": lambda _node: st.none(),
    "boolean": lambda _node: st.booleans(),
    "integer": integers,
    "number": numbers,
    "string": texts,
}
"""What makes the values of each type that holds no others."""
