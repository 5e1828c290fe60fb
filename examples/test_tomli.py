"""Tests of a real TOML parser, as a package may have them; nothing in them is made for fuzzfarm.

    pip install tomli tomli-w
    fuzzfarm fuzz examples/test_tomli.py --examples 5000

They run under plain pytest too.
"""

from __future__ import annotations

import datetime
import math
from contextlib import suppress
from typing import Any

import tomli
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))
SCALARS = (
    st.text()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | OFFSETS)
)
DOCUMENTS = st.dictionaries(
    st.text(),
    st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10),
)
WORDS = ["1e5", "0x", "inf", "true", "1979-05-27", "T07:32:00", "Z", "[[", "]]", "'''", '"""', "\\u00e9", "\r\n"]
FRAGMENTS = st.sampled_from("aé1=-+._,#[]{}'\"\\ \t\n") | st.sampled_from(WORDS)


def same(left: Any, right: Any) -> bool:
    """Compare as TOML does: types count, and one nan is like another."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and left == right


@given(DOCUMENTS)
def test_what_is_written_is_read_back(document: dict[str, Any]) -> None:
    """Writer and reader agree on every value and its type."""
    assert same(tomli.loads(tomli_w.dumps(document)), document)


@given(st.lists(FRAGMENTS, max_size=30).map("".join) | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """Every text is a document, or a TOMLDecodeError: no other exception gets out."""
    with suppress(tomli.TOMLDecodeError):
        tomli.loads(text)
