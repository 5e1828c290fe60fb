"""Progress travels, and nothing else passes for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzfarm_shared.errors import CodecError
from fuzzfarm_shared.operations import MAX_KEY_CHARS
from fuzzfarm_shared.progress import (
    MESSAGE_BYTES,
    MOST_TOLD,
    TAIL_BYTES,
    Progress,
    decode_progress,
    encode_progress,
    tail_bytes,
)
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.values import pack

numbers = st.integers(0, 1 << 50)
texts = st.text(max_size=50)
told = st.builds(
    Progress, texts, numbers, texts, st.floats(0, 1e9), numbers, numbers, texts, texts, st.none() | numbers
)


ROW = ["k", 1, "w", 1.0, 1, 1, "", "", 1, 1.0]


@given(st.lists(told, max_size=5))
def test_what_is_told_is_what_is_read(some: list[Progress]) -> None:
    assert decode_progress(encode_progress(some)) == some


@pytest.mark.parametrize(
    "value",
    [None, 1, [1], [[]], [["k"] * 10], [[*ROW[:7], b"", 1, 1.0]], [ROW[:-1]], [[*ROW, 1]], [[*ROW[:9], "1"]]],
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


def test_what_is_told_of_many_jobs_with_long_keys_is_no_more_than_a_reader_takes() -> None:
    tail = "\N{REPLACEMENT CHARACTER}" * tail_bytes(MOST_TOLD)  # each byte was no text
    told = Progress("\N{GRINNING FACE}" * MAX_KEY_CHARS, 1, "w" * 500, 1.0, 1 << 50, 1 << 50, tail, tail, 1 << 50, 1.0)
    assert len(Signer((b"k" * 32,)).seal(encode_progress([told] * MOST_TOLD), ("context",))) < MESSAGE_BYTES


def test_of_a_few_jobs_more_is_told_than_of_many() -> None:
    assert tail_bytes(0) == tail_bytes(1) == tail_bytes(32) == TAIL_BYTES
    assert tail_bytes(64) == TAIL_BYTES // 2
