"""The farm end to end: a producer, a real server, real workers in their own interpreters."""

from __future__ import annotations

import asyncio
from typing import Any

from fuzzfarm import CallOperation, ErrorKind, Farm, FuzzOperation, SubprocessJob

WAIT_S = 30.0


def test_a_keyed_batch_of_every_kind_comes_back_as_one_aggregate(start_worker: Any, farm_settings: Any) -> None:
    start_worker()

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            batch = await farm.submit(
                [
                    CallOperation(key="sync", target="farm_targets:echo", args=[1]),
                    CallOperation(key="async", target="farm_targets:echo_async", kwargs={"value": {2, 3}}),
                    CallOperation(key="fails", target="farm_targets:fail", args=["no"]),
                    SubprocessJob(key="program", command=["echo", "hello"]),
                    FuzzOperation(key="fuzz", target="farm_targets:fuzz_small", examples=300),
                ]
            )
            aggregate = await batch.wait(WAIT_S)
            assert aggregate.results["sync"] == 1
            assert aggregate.results["async"] == {2, 3}
            assert aggregate.results["program"].stdout == "hello\n"
            fuzz = aggregate.results["fuzz"]
            assert fuzz.examples == 300
            assert [finding.type for finding in fuzz.findings] == ["AssertionError"]
            assert set(aggregate.errors) == {"fails"}
            assert aggregate.errors["fails"].kind is ErrorKind.EXCEPTION
            assert aggregate.errors["fails"].message == "no"
            assert aggregate.status.done

    asyncio.run(scenario())


def test_two_workers_share_a_large_batch_and_every_key_comes_once(start_worker: Any, farm_settings: Any) -> None:
    start_worker()
    start_worker()

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            batch = await farm.submit(CallOperation.many("farm_targets:echo", range(50_000)))
            seen = [outcome.key async for outcome in batch.stream()]
            assert sorted(map(int, seen)) == list(range(50_000))
            status = await batch.status()
            assert (status.total, status.succeeded, status.pending) == (50_000, 50_000, 0)

    asyncio.run(scenario())


def test_a_stream_goes_on_behind_its_cursor(start_worker: Any, farm_settings: Any) -> None:
    start_worker()

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            batch = await farm.submit(CallOperation.many("farm_targets:echo", range(1_000)))
            first = batch.stream()
            head = [(await anext(first)).key for _ in range(123)]
            tail = [outcome.key async for outcome in batch.stream(first.cursor)]
            assert sorted(map(int, head + tail)) == list(range(1_000))

    asyncio.run(scenario())
