"""Fuzz operations share the children of a farm: each has its turn, and none waits for another to end."""

from __future__ import annotations

import asyncio
from typing import Any

from fuzzfarm import Farm, FuzzOperation, FuzzResult
from fuzzfarm.batch import Batch
from fuzzfarm_shared.keys import Part
from fuzzfarm_shared.merging import merge

WAIT_S = 50.0


def operation(key: str, target: str, **fields: Any) -> FuzzOperation:
    return FuzzOperation(key=key, target=f"farm_targets:{target}", **fields)


async def so_far(batch: Batch, place: int) -> FuzzResult:
    return merge(await batch.shard_results(place))


def test_quick_targets_do_not_wait_for_a_slow_one_to_end(start_worker: Any, farm_settings: Any) -> None:
    start_worker(max_children=1)

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            slow = operation("slow", "fuzz_slowly", examples=1_000_000)
            quick = [operation(f"quick {n}", "fuzz_nothing", examples=300, seed=n) for n in range(4)]
            batch = await farm.submit([slow, *quick])
            ended: list[str] = []
            async with asyncio.timeout(WAIT_S):
                async for outcome in batch.stream():
                    assert outcome.ok, outcome
                    ended.append(outcome.key)
                    if len(ended) == len(quick):
                        break
            assert sorted(ended) == [f"quick {n}" for n in range(4)]
            assert (await batch.status()).pending == 1
            while (await so_far(batch, 0)).examples == 0:
                await asyncio.sleep(0.05)
            await batch.cancel()

    asyncio.run(scenario())


def test_endless_targets_get_equal_shares_whatever_their_examples_take(start_worker: Any, farm_settings: Any) -> None:
    start_worker(max_children=1)

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            targets = ["fuzz_slowly", "fuzz_nothing", "fuzz_text"]
            options = {"time_s": 9.0, "time_from": "batch"}
            batch = await farm.submit([operation(name, name, **options) for name in targets])
            results = (await batch.wait(WAIT_S)).results
            seconds = {name: results[name].duration_s for name in targets}
            assert sum(seconds.values()) < 10.0
            assert max(seconds.values()) - min(seconds.values()) < 2.5, seconds  # about one turn on a busy host
            assert results["fuzz_nothing"].examples > 20 * results["fuzz_slowly"].examples

    asyncio.run(scenario())


def test_the_time_of_a_batch_ends_for_all_its_targets_at_once(start_worker: Any, farm_settings: Any) -> None:
    start_worker(max_children=1)

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            options = {"time_s": 4.0, "time_from": "batch"}
            batch = await farm.submit([operation(f"k{n}", "fuzz_nothing", seed=n, **options) for n in range(5)])
            aggregate = await batch.wait(WAIT_S)
            assert sum(result.duration_s for result in aggregate.results.values()) < 5.0
            assert all(result.examples > 0 for result in aggregate.results.values())

    asyncio.run(scenario())


def test_one_operation_runs_on_all_workers_also_on_those_that_come_later(start_worker: Any, farm_settings: Any) -> None:
    start_worker(max_children=1)

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            batch = await farm.submit([operation("k", "fuzz_slowly", examples=10_000_000)])
            while (await so_far(batch, 0)).examples == 0:
                await asyncio.sleep(0.05)
            start_worker(max_children=1)
            async with asyncio.timeout(WAIT_S):
                while (await farm.queue()).running < 2:
                    await asyncio.sleep(0.05)
            await batch.cancel()

    asyncio.run(scenario())


def test_turns_leave_few_chunks_behind(start_worker: Any, farm_settings: Any) -> None:
    start_worker(max_children=1)

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            batch = await farm.submit([operation(f"k{n}", "fuzz_slowly", examples=100_000, seed=n) for n in range(3)])
            async with asyncio.timeout(WAIT_S):
                while min([(await so_far(batch, place)).duration_s for place in range(3)]) < 2.0:
                    await asyncio.sleep(0.1)
            server = batch._readings._server
            assert await server.call("HLEN", server.settings.keys.batch(batch.key, Part.CHUNKS)) <= 6
            await batch.cancel()

    asyncio.run(scenario())
