import asyncio
from collections.abc import Mapping

import pytest

from fuzzfarm.fuzz_status import PLACES_PER_READ, RATE_WINDOW_S, FuzzStatus, FuzzWatcher, Rate
from fuzzfarm_shared.outcomes import ErrorKind, FuzzResult, OperationError


def result(examples: int, replaced: int = 0) -> FuzzResult:
    return FuzzResult(examples, examples - 1, 1, examples / 10, 10.0, 0, children_replaced=replaced)


class Server:
    """What shards have recorded, as `FuzzReadings` tells it."""

    def __init__(self, **recorded: list[FuzzResult]) -> None:
        self.keys = list(recorded)
        self.recorded = list(recorded.values())
        self.reads: list[dict[int, int]] = []

    async def last_place(self) -> int:
        return len(self.recorded) - 1

    async def results(self, read: Mapping[int, int]) -> dict[int, list[FuzzResult]]:
        self.reads.append(dict(read))
        found = {place: self.recorded[place][start:] for place, start in read.items()}
        return {place: results for place, results in found.items() if results}

    async def operation_key(self, place: int) -> str | None:
        return self.keys[place] if self.recorded[place] else None


def watcher(server: Server) -> FuzzWatcher:
    return FuzzWatcher(server, "b")  # type: ignore[arg-type]


def test_results_of_shards_are_read_once_and_added_up() -> None:
    async def scenario() -> None:
        server = Server(one=[result(10), result(20, replaced=2)], two=[])
        watching = watcher(server)
        first = await watching.read()
        assert {key: one.result.examples for key, one in first.operations.items()} == {"one": 30}
        server.recorded[1].append(result(5))
        server.recorded[0].append(result(7))
        second = await watching.read()
        assert server.reads == [{0: 0, 1: 0}, {0: 2, 1: 0}]
        assert {key: one.result.examples for key, one in second.operations.items()} == {"one": 37, "two": 5}
        assert (second.total.examples, second.total.invalid_examples, second.total.children_replaced) == (42, 4, 2)
        assert second.total.invalid_share == pytest.approx(4 / 42)
        assert second.total.example_s == pytest.approx(0.1)

    asyncio.run(scenario())


def test_an_outcome_stands_for_its_operation_from_then_on() -> None:
    async def scenario() -> None:
        server = Server(one=[result(10)], two=[result(10)])
        watching = watcher(server)
        await watching.read()
        watching.note("one", result(100), None)
        watching.note("two", None, OperationError(ErrorKind.CANCELLED, "", "stopped"))
        watching.note("a call", 7, None)
        status = await watching.read()
        assert status.operations["one"].result.examples == 100
        assert status.operations["two"].result.examples == 10
        assert status.operations["two"].error is not None
        assert all(one.ended for one in status.operations.values())
        assert status.examples_per_s == 0.0
        assert server.reads == [{0: 0, 1: 0}]

    asyncio.run(scenario())


def test_operations_of_a_large_batch_are_read_in_turns() -> None:
    async def scenario() -> FuzzStatus:
        watching = watcher(Server(**{f"k{n}": [result(1)] for n in range(3 * PLACES_PER_READ)}))
        for _ in range(3):
            status = await watching.read()
        return status

    assert asyncio.run(scenario()).total.examples == 3 * PLACES_PER_READ


def test_a_rate_counts_what_came_lately_however_rarely_it_comes() -> None:
    now = [0.0]
    rate = Rate(lambda: now[0])
    rate.note(0)
    assert rate.per_s is None
    for second in range(10, 200, 10):
        now[0] = float(second)
        rate.note(100 * second if second <= 100 else 10_000 + 20 * (second - 100))
    assert rate.per_s == pytest.approx(20.0)
    now[0] += RATE_WINDOW_S + 1
    rate.note(10_000 + 20 * 90)
    assert rate.per_s == 0.0
