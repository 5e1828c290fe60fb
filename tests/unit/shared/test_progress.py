"""Progress travels, and nothing else passes for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzfarm_shared.errors import CodecError
from fuzzfarm_shared.progress import Progress, decode_progress, encode_progress
from fuzzfarm_shared.values import pack

numbers = st.integers(0, 1 << 50)
texts = st.text(max_size=50)
told = st.builds(Progress, texts, numbers, texts, st.floats(0, 1e9), numbers, numbers, texts, texts)


@given(st.lists(told, max_size=5))
def test_what_is_told_is_what_is_read(some: list[Progress]) -> None:
    assert decode_progress(encode_progress(some)) == some


@pytest.mark.parametrize(
    "value",
    [None, 1, [1], [[]], [["k"] * 8], [["k", 1, "w", 1.0, 1, 1, "", b""]], [["k", 1, "w", 1.0, 1, 1, "", "", 9]]],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(CodecError):
        decode_progress(pack(value))


@given(st.binary(max_size=100))
def test_any_bytes_are_progress_or_refused(body: bytes) -> None:
    try:
        decode_progress(body)
    except CodecError:
        return
