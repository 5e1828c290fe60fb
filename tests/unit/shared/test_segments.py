from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from travelling import any_text, errors, mutations, same, values

from fuzzfarm_shared.errors import CodecError, UnsupportedValueError
from fuzzfarm_shared.segments import Segment, decode_segment, encode_segment
from fuzzfarm_shared.values import pack, unpack

seconds = st.floats(0, 3_600, width=32)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    count = draw(st.integers(1, 5))
    start = draw(st.integers(0, 2**31))
    indexes = draw(
        st.just(range(start, start + count))
        | st.lists(st.integers(0, 2**32 - 1), min_size=count, max_size=count, unique=True)
    )
    failed = draw(st.dictionaries(st.integers(0, count - 1), errors, max_size=count))
    column = st.lists(seconds, min_size=count, max_size=count)
    return Segment(
        first=draw(st.integers(0, 2**40)),
        keys=draw(st.none() | st.lists(any_text, min_size=count, max_size=count)),
        indexes=indexes,
        values=[None if place in failed else draw(values) for place in range(count)],
        errors=failed,
        attempt=draw(st.integers(1, 9)),
        worker=draw(any_text),
        epoch=draw(st.floats(0, 2e9)),
        started=draw(column),
        durations=draw(column),
    )


@given(segments())
def test_the_outcomes_of_a_segment_arrive_as_they_were(segment: Segment) -> None:
    arrived = decode_segment(encode_segment(segment))
    assert same(list(arrived.outcomes()), list(segment.outcomes()))
    assert list(arrived.indexes) == list(segment.indexes)


@given(segments())
def test_each_operation_has_a_value_or_an_error(segment: Segment) -> None:
    positions = [str(segment.first + index) for index in segment.indexes]
    outcomes = list(segment.outcomes())
    assert [outcome.key for outcome in outcomes] == (segment.keys if segment.keys is not None else positions)
    for place, outcome in enumerate(outcomes):
        assert outcome.ok == (outcome.error is None) == (place not in segment.errors)
        assert outcome.attempt == segment.attempt
        assert outcome.worker == segment.worker


def small(**changes: Any) -> bytes:
    segment = Segment(0, None, range(2), [1, 2], {}, 1, "w", 0.0, [0.0, 0.0], [0.0, 0.0])
    names = ["first", "keys", "indexes", "values", "errors", "attempt", "worker", "epoch", "started", "durations"]
    fields = dict(zip(names, unpack(encode_segment(segment)), strict=True))
    return pack(list({**fields, **changes}.values()))


def test_the_body_that_the_cases_below_change_is_valid() -> None:
    assert [outcome.value for outcome in decode_segment(small()).outcomes()] == [1, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {"first": "0"},
        {"keys": ["a"]},
        {"keys": ["a", 1]},
        {"keys": "ab"},
        {"indexes": [0, 3]},
        {"indexes": [0, 2**64 - 1]},
        {"indexes": ["a", "b"]},
        {"indexes": b"\0\0"},
        {"values": [1]},
        {"values": "ab"},
        {"errors": []},
        {"errors": {0: "text"}},
        {"errors": {"0": None}},
        {"attempt": None},
        {"worker": 1},
        {"epoch": "now"},
        {"started": b"\0\0\0\0"},
        {"durations": None},
    ],
    ids=repr,
)
def test_a_segment_that_does_not_validate_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="not a segment of outcomes"):
        decode_segment(small(**changes))


@given(mutations(segments().map(encode_segment)))
def test_a_damaged_segment_gives_outcomes_or_raises_a_codec_error(raw: bytes) -> None:
    with contextlib.suppress(CodecError):
        list(decode_segment(raw).outcomes())


@given(st.integers(0, 9), values)
def test_a_segment_with_one_strange_field_gives_outcomes_or_raises_a_codec_error(place: int, value: Any) -> None:
    fields = unpack(small())
    fields[place] = value
    with contextlib.suppress(CodecError):
        list(decode_segment(pack(fields)).outcomes())


def test_a_value_that_cannot_travel_is_refused() -> None:
    with pytest.raises(UnsupportedValueError):
        encode_segment(Segment(0, None, range(1), [object()], {}, 1, "w", 0.0, [0.0], [0.0]))


def test_a_small_result_takes_its_value_and_eight_bytes() -> None:
    count = 1_000
    segment = Segment(0, None, range(count), [7] * count, {}, 1, "w", 0.0, [0.0] * count, [0.0] * count)
    assert len(encode_segment(segment)) < count * (1 + 8) + 60
