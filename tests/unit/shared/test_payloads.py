from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from travelling import any_text, mutations, same, values

from fuzzfarm_shared.errors import CodecError, UnknownKindError, UnsupportedValueError
from fuzzfarm_shared.operations import AnyOperation, CallOperation, FuzzOperation, ProcessLimits, SubprocessJob
from fuzzfarm_shared.payloads import Payload, PayloadBuilder, decode_payload
from fuzzfarm_shared.values import pack, unpack

keys = st.none() | st.text(min_size=1, max_size=8)
common: dict[str, st.SearchStrategy[Any]] = {
    "key": keys,
    "timeout_s": st.none() | st.floats(0.001, 1_000),
    "retries": st.integers(0, 3),
}
targets = st.sampled_from(["mod:call", "pack.mod:Class.method"])
calls = st.builds(
    CallOperation,
    target=targets,
    args=st.lists(values, max_size=2),
    kwargs=st.dictionaries(any_text, values, max_size=2),
    isolation=st.sampled_from(["worker", "child"]),
    **common,
)
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
jobs = st.builds(
    SubprocessJob,
    command=st.lists(words, min_size=1, max_size=3),
    env=st.dictionaries(words, words, max_size=2),
    stdin=st.none() | st.binary(max_size=8),
    limits=st.builds(ProcessLimits, cpu_s=st.none() | st.integers(1, 9)),
    **common,
)
fuzz_operations = st.builds(
    FuzzOperation,
    target=targets,
    strategy=st.none() | targets,
    seed=st.integers(0, 2**63 - 1),
    examples=st.integers(1, 10**12),
) | st.builds(FuzzOperation, target=targets, time_s=st.floats(0.1, 10), key=keys)
operations = st.lists(calls | jobs | fuzz_operations, min_size=1, max_size=6)


def built(first: int, listed: list[AnyOperation]) -> PayloadBuilder:
    builder = PayloadBuilder(first)
    for operation in listed:
        builder.add(operation)
    return builder


def with_key(operation: AnyOperation, position: int) -> AnyOperation:
    return operation.model_copy(update={"key": operation.key or str(position)})


def check_same(payload: Payload, first: int, listed: list[AnyOperation]) -> None:
    assert len(payload) == len(listed)
    for place, operation in enumerate(listed):
        arrived, sent = payload.operation(place), with_key(operation, first + place)
        assert type(arrived) is type(sent)
        assert same(arrived.model_dump(), sent.model_dump())


@given(st.integers(0, 10**9), operations)
def test_mixed_operations_arrive_as_they_were(first: int, listed: list[AnyOperation]) -> None:
    payload = decode_payload(built(first, listed).encode())
    check_same(payload, first, listed)
    assert len(list(payload.rows())) == len(listed)


@given(st.integers(0, 10**9), st.lists(calls | jobs, min_size=2, max_size=7))
def test_both_halves_together_are_the_whole(first: int, listed: list[AnyOperation]) -> None:
    middle = len(listed) // 2
    low, high = built(first, listed).halves()
    check_same(decode_payload(low.encode()), first, listed[:middle])
    check_same(decode_payload(high.encode()), first + middle, listed[middle:])
    assert low.named + high.named == built(first, listed).named


@given(st.lists(st.lists(values, max_size=2), min_size=1, max_size=5), st.integers(0, 5))
def test_a_group_of_calls_arrives_as_single_calls_would(arguments: list[list[Any]], first: int) -> None:
    group = CallOperation.many("mod:call", arguments, star=True, retries=2)
    builder = PayloadBuilder(first)
    builder.add_calls(group, list(group.arguments()))
    singles: list[AnyOperation] = [CallOperation(target="mod:call", args=args, retries=2) for args in arguments]
    check_same(decode_payload(builder.encode()), first, singles)
    assert builder.encode() == built(first, singles).encode()


def test_what_operations_share_is_sent_once() -> None:
    alike = [CallOperation(target="mod:call", args=[number]) for number in range(100)]
    payload = decode_payload(built(0, alike).encode())
    assert len(payload.specs) == 1
    assert payload.spec_of is None
    assert payload.keys is None


def test_an_argument_that_cannot_travel_is_refused_before_it_is_sent() -> None:
    with pytest.raises(UnsupportedValueError, match="cannot be sent"):
        built(0, [CallOperation(target="mod:call", args=[object()])]).encode()


def body(**changes: Any) -> bytes:
    fields = {
        "first": 0,
        "count": 1,
        "keys": None,
        "specs": [["call", {"target": "mod:call"}]],
        "spec_of": None,
        "left": [[]],
        "right": None,
    }
    return pack(list({**fields, **changes}.values()))


def test_the_body_that_the_cases_below_change_is_valid() -> None:
    assert decode_payload(body()).operation(0) == CallOperation(key="0", target="mod:call")


JOB = [["subprocess", {}]]


@pytest.mark.parametrize(
    "changes",
    [
        {"first": "0"},
        {"first": -1},
        {"first": True},
        {"count": 2},
        {"count": [1]},
        {"count": 0, "left": []},
        {"keys": ["a", "b"]},
        {"keys": [1]},
        {"keys": "a"},
        {"specs": []},
        {"specs": [["call"]]},
        {"specs": [[["call"], {}]]},
        {"specs": [["call", {"target": "mod:call", "unknown": 1}]]},
        {"specs": [["call", {"target": "mod:call", "retries": 10**6}]]},
        {"specs": [["call", {"target": "no target"}]]},
        {"specs": [["call", 5]]},
        {"spec_of": b"\x01\x00"},
        {"spec_of": b"\x00"},
        {"spec_of": 5},
        {"left": [5]},
        {"left": 5},
        {"left": "x"},
        {"left": {0: []}},
        {"right": [5]},
        {"right": [{1: 2}]},
        {"right": {0: None}},
        {"specs": JOB, "left": [[]]},
        {"specs": JOB, "left": [["ls", 1]]},
        {"specs": JOB, "left": [["ls\0"]]},
        {"specs": JOB, "left": [["ls"]], "right": ["text"]},
        {"specs": [["fuzz", {"target": "mod:call"}]]},
    ],
    ids=repr,
)
def test_a_payload_that_does_not_validate_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="not a payload of operations"):
        decode_payload(body(**changes))


def test_a_payload_with_operations_of_an_unknown_kind_says_what_to_upgrade() -> None:
    with pytest.raises(UnknownKindError, match="no operations of kind 'no such kind': upgrade it on this host"):
        decode_payload(body(specs=[["no such kind", {}]]))


def test_an_option_that_is_nested_too_deeply_to_be_shown_is_refused() -> None:
    deep = b"\x91" * 1_000 + b"\xc0"
    with pytest.raises(CodecError, match="not a payload of operations"):
        decode_payload(body().replace(pack("mod:call"), deep))


@given(mutations(operations.map(lambda listed: built(3, listed).encode())))
def test_a_damaged_payload_decodes_to_whole_operations_or_raises_a_codec_error(raw: bytes) -> None:
    with contextlib.suppress(CodecError):
        payload = decode_payload(raw)
        payload.keys_of(range(len(payload)))
        list(payload.rows())


@given(st.lists(values, min_size=7, max_size=7) | values)
def test_any_value_in_place_of_a_payload_decodes_or_raises_a_codec_error(value: Any) -> None:
    with contextlib.suppress(CodecError):
        decode_payload(pack(value))


@given(st.integers(0, 6), values)
def test_a_payload_with_one_strange_field_decodes_or_raises_a_codec_error(place: int, value: Any) -> None:
    fields = unpack(body())
    fields[place] = value
    with contextlib.suppress(CodecError):
        decode_payload(pack(fields))


def test_a_half_is_what_its_operations_alone_would_be() -> None:
    jobs = [SubprocessJob(command=["ls"], env={"NAME": str(place % 3)}) for place in range(20)]
    whole, alone = PayloadBuilder(0), PayloadBuilder(10)
    for job in jobs:
        whole.add(job)
    for job in jobs[10:]:
        alone.add(job)
    assert whole.halves()[1].encode() == alone.encode()


def test_an_option_that_was_given_is_told_from_one_that_was_left_to_the_worker() -> None:
    left, given = CallOperation(target="mod:call"), CallOperation(target="mod:call", timeout_s=30.0, retries=0)
    assert left.model_dump() == given.model_dump()
    payload = decode_payload(built(0, [left, given]).encode())
    arrived = [payload.spec(place).model_fields_set for place in range(2)]
    assert arrived[1] - arrived[0] == {"timeout_s", "retries"}


def test_a_group_says_only_the_options_that_it_was_given() -> None:
    assert CallOperation.many("mod:call", []).template.model_fields_set == {"target"}
    assert "timeout_s" in CallOperation.many("mod:call", [], timeout_s=30.0).template.model_fields_set


def test_options_are_sent_only_with_the_operations_that_have_them() -> None:
    builder = PayloadBuilder(0)
    for place in range(64):
        builder.add(SubprocessJob(command=["ls"], env={"NAME": f"{place}" * 1_000}))
    whole = len(builder.encode())
    assert sum(len(half.encode()) for half in builder.halves()) < 1.01 * whole
