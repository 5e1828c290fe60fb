"""Submitting again under the same key: joining, resuming, conflicting, and waiting for room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fuzzfarm import (
    BatchConflictError,
    BatchNotSealedError,
    BatchState,
    CallOperation,
    DuplicateKeyError,
    Farm,
    QueueFullError,
)
from fuzzfarm.feed import FLUSH_AFTER_S

WAIT_S = 30.0


def operations(count: int, *, start: int = 0, fail_at: int | None = None) -> Iterator[CallOperation]:
    for n in range(start, count):
        if n == fail_at:
            raise OSError("the source broke off")
        yield CallOperation(key=f"k{n}", target="farm_targets:echo", args=[n])


def expected(count: int) -> dict[str, int]:
    return {f"k{n}": n for n in range(count)}


@pytest.mark.parametrize("make", [list, iter], ids=["list", "lazy"])
def test_the_same_content_joins_the_batch(shared_farm: Any, batch_key: str, make: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            first = await farm.submit(make(list(operations(500))), batch_key)
            await first.wait(WAIT_S)
            second = await farm.submit(make(list(operations(500))), batch_key)
            aggregate = await second.wait(WAIT_S)
            assert aggregate.results == expected(500)
            assert aggregate.status.total == 500

    asyncio.run(scenario())


def test_an_empty_batch_can_be_joined(shared_farm: Any, batch_key: str) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            await farm.submit([], batch_key)
            assert (await (await farm.submit([], batch_key)).status()).state is BatchState.DONE
            with pytest.raises(BatchConflictError):
                await farm.submit(list(operations(1)), batch_key)

    asyncio.run(scenario())


def test_two_producers_may_submit_the_same_content_at_the_same_time(shared_farm: Any, batch_key: str) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as one, Farm.connect(**shared_farm) as two:
            batches = await asyncio.gather(
                one.submit(operations(3_000), batch_key), two.submit(operations(3_000), batch_key)
            )
            for batch in batches:
                assert (await batch.wait(WAIT_S)).results == expected(3_000)

    asyncio.run(scenario())


CHANGES = {
    "shorter": lambda: operations(1_999),
    "shorter at a payload boundary": lambda: operations(64),
    "empty": lambda: operations(0),
    "longer": lambda: operations(2_001),
    "other first": lambda: operations(2_000, start=1),
    "other argument": lambda: (
        operation.model_copy(update={"args": [0]}) if operation.key == "k1999" else operation
        for operation in operations(2_000)
    ),
    "other option": lambda: (operation.model_copy(update={"retries": 1}) for operation in operations(2_000)),
    "other key": lambda: (operation.model_copy(update={"key": f"x{operation.key}"}) for operation in operations(2_000)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_content_is_a_conflict_and_leaves_the_batch_as_it_is(farm_settings: Any, change: str) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            batch = await farm.submit(operations(2_000), "same")
            before = await batch.status()
            with pytest.raises(BatchConflictError, match="'same' exists with other content") as caught:
                await farm.submit(CHANGES[change](), "same")
            assert caught.value.key == "same"
            assert await batch.status() == before

    asyncio.run(scenario())


def test_a_duplicate_key_behind_what_another_submit_sent_leaves_its_batch_running(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            batch = await farm.submit(operations(500), "theirs")
            with pytest.raises(DuplicateKeyError, match="'k99'"):
                await farm.submit(iter([*operations(100), *operations(500, start=99)]), "theirs")
            assert (await batch.status()).state is BatchState.RUNNING

    asyncio.run(scenario())


def test_an_interrupted_submit_goes_on_behind_what_was_accepted(shared_farm: Any, batch_key: str) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            with pytest.raises(OSError, match="broke off"):
                await farm.submit(operations(5_000, fail_at=2_500), batch_key)
            batch = farm.batch(batch_key)
            status = await batch.status()
            assert status.state is BatchState.SUBMITTING
            assert 0 < status.total <= 2_500
            with pytest.raises(BatchNotSealedError, match="is still being submitted") as caught:
                await batch.results()
            assert caught.value.accepted == status.total
            await farm.submit(operations(5_000), batch_key)
            aggregate = await batch.wait(WAIT_S)
            assert aggregate.results == expected(5_000)
            assert aggregate.status.total == 5_000

    asyncio.run(scenario())


def test_what_an_interrupted_submit_sent_runs_while_nobody_submits(shared_farm: Any, batch_key: str) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm, asyncio.timeout(WAIT_S):
            with pytest.raises(OSError, match="broke off"):
                await farm.submit(operations(5_000, fail_at=2_500), batch_key)
            total = (await farm.batch(batch_key).status()).total
            stream = farm.batch(batch_key).stream()
            seen = {(await anext(stream)).key for _ in range(total)}
            assert seen == set(expected(total))

    asyncio.run(scenario())


def test_slow_async_input_joins_whatever_its_pauses(shared_farm: Any, batch_key: str) -> None:
    async def slow() -> AsyncIterator[CallOperation]:
        for n, operation in enumerate(operations(40)):
            if n in {10, 25}:
                await asyncio.sleep(2 * FLUSH_AFTER_S)
            yield operation

    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            await farm.submit(list(operations(40)), batch_key)
            batch = await farm.submit(slow(), batch_key)
            assert (await batch.wait(WAIT_S)).results == expected(40)

    asyncio.run(scenario())


def test_a_cancelled_batch_is_joined_without_accepting_more(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            with pytest.raises(OSError, match="broke off"):
                await farm.submit(operations(5_000, fail_at=2_500), "half")
            batch = farm.batch("half")
            total = (await batch.status()).total
            assert await batch.cancel() == total
            status = await (await farm.submit(operations(5_000), "half")).status()
            assert (status.state, status.total, status.cancelled) == (BatchState.CANCELLED, total, total)

    asyncio.run(scenario())


def test_a_full_queue_raises_when_asked_not_to_wait_and_keeps_what_was_accepted(farm_settings: Any) -> None:
    settings = {**farm_settings, "queue_limit": 3, "chunk_operations": 10}

    async def scenario() -> None:
        async with Farm.connect(**settings) as farm:
            with pytest.raises(QueueFullError, match="holds 3 chunks and the limit is 3") as caught:
                await farm.submit(operations(100), "full", wait=False)
            assert (caught.value.depth, caught.value.limit) == (3, 3)
            assert (await farm.batch("full").status()).total == 30

    asyncio.run(scenario())


def test_a_submit_waits_while_the_queue_is_full_and_goes_on_when_a_worker_comes(
    start_worker: Any, farm_settings: Any
) -> None:
    settings = {**farm_settings, "queue_limit": 3, "chunk_operations": 10}

    async def scenario() -> None:
        async with Farm.connect(**settings) as farm, asyncio.timeout(WAIT_S):
            submit = asyncio.create_task(farm.submit(operations(500), "full"))
            while not (known := await farm.batches()) or known[0].total < 30:
                await asyncio.sleep(0.01)
            done, _ = await asyncio.wait([submit], timeout=0.3)
            assert not done
            assert (await farm.batch("full").status()).total == 30
            start_worker()
            assert (await (await submit).wait()).results == expected(500)

    asyncio.run(scenario())


def test_cancelling_a_submit_leaves_the_batch_to_be_resumed(farm_settings: Any) -> None:
    settings = {**farm_settings, "queue_limit": 3, "chunk_operations": 10}

    async def scenario() -> None:
        async with Farm.connect(**settings) as farm:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(farm.submit(operations(100), "stopped"), 0.3)
            assert (await farm.batch("stopped").status()).state is BatchState.SUBMITTING
        async with Farm.connect(**farm_settings, chunk_operations=10) as farm:
            batch = await farm.submit(operations(100), "stopped")
            assert (await batch.status()).state is BatchState.RUNNING
            assert (await batch.status()).total == 100

    asyncio.run(scenario())
