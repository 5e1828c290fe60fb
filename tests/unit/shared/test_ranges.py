from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from travelling import mutations

from fuzzfarm_shared.errors import CodecError
from fuzzfarm_shared.ranges import RangeSet
from fuzzfarm_shared.values import pack

SMALL = st.integers(0, 60)
additions = st.lists(
    st.lists(SMALL, max_size=6) | st.tuples(SMALL, SMALL).map(lambda ends: range(*ends)) | st.just(range(0, 40, 3)),
    max_size=8,
)


def filled(batches: list[list[int] | range]) -> tuple[RangeSet, set[int]]:
    ranges, model = RangeSet(), set[int]()
    for numbers in batches:
        ranges.add_all(numbers)
        model.update(numbers)
    return ranges, model


@given(additions)
def test_a_range_set_holds_what_a_set_holds(batches: list[list[int] | range]) -> None:
    ranges, model = filled(batches)
    assert len(ranges) == len(model)
    assert [number for number in range(-1, 62) if number in ranges] == sorted(model)


@given(additions)
def test_runs_are_sorted_and_neither_touch_nor_overlap(batches: list[list[int] | range]) -> None:
    bounds = [bound for run in filled(batches)[0].runs for bound in run]
    assert bounds == sorted(set(bounds))


@given(additions, SMALL, SMALL)
def test_a_part_of_it_and_what_it_lacks_are_those_of_a_set(
    batches: list[list[int] | range], start: int, stop: int
) -> None:
    ranges, model = filled(batches)
    wanted = set(range(start, stop))
    assert list(ranges.missing(start, stop)) == sorted(wanted - model)
    assert set(RangeSet().missing(start, stop)) == wanted
    part = ranges.within(start, stop)
    assert {number for number in range(62) if number in part} == wanted & model
    assert all(low < high for low, high in ranges.gaps(start, stop))


@given(additions)
def test_it_arrives_as_it_was(batches: list[list[int] | range]) -> None:
    ranges, _ = filled(batches)
    assert RangeSet.decode(ranges.encode()) == ranges


def test_the_empty_set_takes_no_bytes() -> None:
    assert RangeSet().encode() == b""


@pytest.mark.parametrize("bounds", [[1], [2, 1], [1, 1], [1, 3, 3, 5], [1, 5, 2, 6], ["a", "b"], [True, 2], {1: 2}, 7])
def test_bytes_that_are_no_runs_are_refused(bounds: object) -> None:
    with pytest.raises(CodecError, match="not a set of runs"):
        RangeSet.decode(pack(bounds))


@given(st.binary(max_size=30) | mutations(additions.map(lambda batches: filled(batches)[0].encode())))
def test_any_bytes_decode_or_raise_a_codec_error(raw: bytes) -> None:
    with contextlib.suppress(CodecError):
        RangeSet.decode(raw)
