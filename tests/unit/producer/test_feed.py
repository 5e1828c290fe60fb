"""Reading the input of a submit, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fuzzfarm.feed import READ_AHEAD, Feed
from fuzzfarm_shared.errors import InvalidOperationError
from fuzzfarm_shared.operations import CallOperation, FuzzOperation
from fuzzfarm_shared.payloads import PayloadBuilder


def calls(count: int) -> Iterator[CallOperation]:
    return (CallOperation(target="m:f", args=[n]) for n in range(count))


def sizes(operations: Any, limit: int, *, patient: bool = False) -> list[tuple[int, bool]]:
    """Length of each payload and whether it was known to be the last."""

    async def scenario() -> list[tuple[int, bool]]:
        found, last = [], False
        async with Feed(operations) as feed:
            while not last:
                builder = PayloadBuilder(0)
                last = await feed.fill(builder, limit, patient=patient)
                found.append((len(builder), last))
        return found

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, [(0, True)]),
        (3, [(3, True)]),
        (10, [(10, True)]),
        (11, [(10, False), (1, True)]),
        (20, [(10, False), (10, True)]),
    ],
)
def test_the_last_payload_is_known_when_it_is_filled(count: int, expected: list[tuple[int, bool]]) -> None:
    assert sizes(calls(count), 10) == expected
    assert sizes(CallOperation.many("m:f", range(count)), 10) == expected


def test_a_fuzz_operation_has_a_payload_of_its_own() -> None:
    fuzz = FuzzOperation(target="m:f")
    assert [size for size, _ in sizes([*calls(2), fuzz, fuzz, *calls(3)], 10)] == [2, 1, 1, 3]


def test_async_input_that_pauses_gives_a_shorter_payload_unless_we_are_patient() -> None:
    async def pausing() -> AsyncIterator[CallOperation]:
        for n, operation in enumerate(calls(6)):
            if n == 4:
                await asyncio.sleep(0.2)
            yield operation

    assert [size for size, _ in sizes(pausing(), 10)] == [4, 2]
    assert [size for size, _ in sizes(pausing(), 10, patient=True)] == [6]


def test_async_input_is_read_a_bounded_number_of_items_ahead() -> None:
    taken = 0

    async def endless() -> AsyncIterator[CallOperation]:
        nonlocal taken
        operation = CallOperation(target="m:f")
        while True:
            taken += 1
            yield operation

    async def scenario() -> None:
        async with Feed(endless()) as feed:
            await feed.fill(PayloadBuilder(0), 10)
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert 10 <= taken <= READ_AHEAD + 10


def test_leaving_the_feed_closes_the_input() -> None:
    closed = False

    async def source() -> AsyncIterator[CallOperation]:
        nonlocal closed
        try:
            while True:
                yield CallOperation(target="m:f")
                await asyncio.sleep(0)
        finally:
            closed = True

    async def scenario() -> None:
        async with Feed(source()) as feed:
            await feed.fill(PayloadBuilder(0), 5)

    asyncio.run(scenario())
    assert closed


@pytest.mark.parametrize("source", ["text", b"bytes", {"a": 1}, None, 3, CallOperation(target="m:f")])
def test_what_is_no_input_is_refused(source: Any) -> None:
    with pytest.raises(InvalidOperationError, match="put a single one into a list"):
        Feed(source)
