"""Live numbers of fuzz operations, from any process that knows the batch."""

from __future__ import annotations

import asyncio
from typing import Any

from fuzzfarm import CallOperation, Farm, FuzzOperation

WAIT_S = 50.0


def operation(key: str, target: str, **fields: Any) -> FuzzOperation:
    return FuzzOperation(key=key, target=f"farm_targets:{target}", **fields)


def test_numbers_of_running_operations_are_read_from_another_process(
    shared_farm: dict[str, Any], batch_key: str
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            call = CallOperation(key="call", target="farm_targets:echo")
            endless = [operation(name, name, time_s=1000) for name in ("fuzz_small", "fuzz_slowly")]
            await farm.submit([call, *endless], batch_key)
            async with Farm.connect(**shared_farm) as other:
                batch = other.batch(batch_key)
                watcher = await batch.fuzz_watcher()
                async with asyncio.timeout(WAIT_S):
                    while True:
                        status = await watcher.read()
                        small, slow = (status.operations.get(one.key or "") for one in endless)
                        if small is not None and small.result.findings and slow is not None:
                            break
                        await asyncio.sleep(0.1)
                assert set(status.operations) == {"fuzz_small", "fuzz_slowly"}
                assert status.total.examples == small.result.examples + slow.result.examples > 0
                assert status.total.distinct_examples > 0
                assert small.examples_per_s > slow.examples_per_s > 0
                assert 0.02 <= slow.result.example_s < 0.5
                assert [finding.type for finding in status.total.findings] == ["AssertionError"]
                await batch.cancel()
                ended = await batch.fuzz_status()
                assert ended.operations == {}  # cancelled operations have no result

    asyncio.run(scenario())


def test_numbers_of_a_batch_that_has_ended_are_those_of_its_outcomes(
    shared_farm: dict[str, Any], batch_key: str
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            batch = await farm.submit([operation("k", "fuzz_exits", examples=60)], batch_key)
            results = (await batch.wait(WAIT_S)).results
            status = await batch.fuzz_status()
            assert status.operations["k"].ended
            assert status.total.examples == results["k"].examples == 60
            assert status.total.children_replaced == results["k"].children_replaced > 0

    asyncio.run(scenario())
