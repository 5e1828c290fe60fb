"""What the server has lost: workers queue it again, or end the batch with errors that say so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from fuzzfarm import Batch, CallOperation, ErrorKind, Farm, FuzzOperation
from fuzzfarm_shared.keys import Keys, Lane, Part
from fuzzfarm_shared.schedule import Priority

WAIT_S = 40.0


@asynccontextmanager
async def half_done(farm_settings: Any) -> AsyncIterator[tuple[Batch, Redis, Keys]]:
    """A batch of which some operations have their outcome and the rest waits, on a farm without workers by now."""
    keys = Keys(farm_settings["namespace"])
    async with (
        Farm.connect(**farm_settings, chunk_operations=5) as farm,
        Redis.from_url(farm_settings["url"]) as client,
    ):
        yield (
            await farm.submit([CallOperation(key=f"k{n}", target="farm_targets:echo", args=[n]) for n in range(20)]),
            client,
            keys,
        )


async def look_now(client: Redis, keys: Keys) -> None:
    """Make every open batch due."""
    for name in await client.zrange(keys.open, 0, -1):
        await client.zadd(keys.open, {name: 0})


async def check_books(batch: Batch, expected: dict[str, Any]) -> None:
    aggregate = await batch.wait(WAIT_S)
    assert aggregate.results == expected
    seen = Counter([outcome.key async for outcome in batch.stream()])
    assert set(seen.values()) == {1}
    status = await batch.status()
    assert status.total == status.succeeded + status.failed == len(seen)


ALL = {f"k{n}": n for n in range(20)}


async def lose_queue(client: Redis, keys: Keys, batch: str) -> None:
    await client.delete(keys.queue, *keys.wake_lists())


async def lose_jobs(client: Redis, keys: Keys, batch: str) -> None:
    names = [name async for name in client.scan_iter(f"arq:job:{batch}/*", 1000)]
    assert names
    await client.delete(*names)


async def lose_wake_lists(client: Redis, keys: Keys, batch: str) -> None:
    await client.delete(*keys.wake_lists())


async def lose_chunks(client: Redis, keys: Keys, batch: str) -> None:
    await client.delete(keys.batch(batch, Part.CHUNKS))


@pytest.mark.parametrize("lose", [lose_queue, lose_jobs, lose_wake_lists, lose_chunks])
def test_chunks_without_what_would_run_them_are_queued_again(start_worker: Any, farm_settings: Any, lose: Any) -> None:
    """Without the reaper (`LOOKS = 0` in take_over.lua) all but the lost wake lists wait for ever."""

    async def scenario() -> None:
        async with half_done(farm_settings) as (batch, client, keys):
            await lose(client, keys, batch.key)
            await look_now(client, keys)
            start_worker()
            await check_books(batch, ALL)

    asyncio.run(scenario())


def test_only_what_has_no_outcome_runs_again_when_all_chunks_are_lost(
    start_worker: Any, farm_settings: Any, tmp_path: Any
) -> None:
    async def scenario() -> None:
        keys = Keys(farm_settings["namespace"])
        names = [f"n{n}" for n in range(6)]
        async with Farm.connect(**farm_settings) as farm, Redis.from_url(farm_settings["url"]) as client:
            first = start_worker(commit_every_s=0.05, share_after_s=60, max_concurrency=1)
            operations = [
                *(
                    CallOperation(key=name, target="farm_targets:note", args=[str(tmp_path), name])
                    for name in names[:3]
                ),
                CallOperation(key="hold", target="farm_targets:note_and_wait_for", args=[str(tmp_path), "hold", "go"]),
                *(
                    CallOperation(key=name, target="farm_targets:note", args=[str(tmp_path), name])
                    for name in names[3:]
                ),
            ]
            batch = await farm.submit(operations)
            stream = batch.stream()
            for _ in range(3):
                await anext(stream)
            first.kill()
            await asyncio.to_thread(first.wait)
            await lose_chunks(client, keys, batch.key)
            await look_now(client, keys)
            (tmp_path / "go").touch()
            start_worker()
            await check_books(batch, {**dict.fromkeys(names), "hold": "hold"})
            assert [len((tmp_path / name).read_text().splitlines()) for name in names] == [1] * 6

    asyncio.run(scenario())


def test_a_fuzz_operation_whose_chunks_are_lost_runs_again_from_its_start(
    start_worker: Any, farm_settings: Any
) -> None:
    async def scenario() -> None:
        keys = Keys(farm_settings["namespace"])
        async with Farm.connect(**farm_settings) as farm, Redis.from_url(farm_settings["url"]) as client:
            batch = await farm.submit([FuzzOperation(key="f", target="fuzzfarm.demo_targets:fuzz_power", examples=100)])
            await lose_chunks(client, keys, batch.key)
            await look_now(client, keys)
            start_worker()
            aggregate = await batch.wait(WAIT_S)
            assert aggregate.results["f"].examples == 100
            assert [outcome.key async for outcome in batch.stream()] == ["f"]

    asyncio.run(scenario())


@pytest.mark.parametrize("time_s", [None, 60.0])
def test_a_fuzz_operation_that_is_lost_and_cannot_be_read_is_one_error(
    start_worker: Any, farm_settings: Any, time_s: float | None
) -> None:
    async def scenario() -> None:
        keys = Keys(farm_settings["namespace"])
        async with Farm.connect(**farm_settings) as farm, Redis.from_url(farm_settings["url"]) as client:
            target = "fuzzfarm.demo_targets:fuzz_power"
            examples = None if time_s else 100
            batch = await farm.submit([FuzzOperation(key="f", target=target, examples=examples, time_s=time_s)])
            await lose_chunks(client, keys, batch.key)
            await client.hset(keys.batch(batch.key, Part.PAYLOADS), "0", b"damaged")  # type: ignore[misc]
            await look_now(client, keys)
            start_worker()
            aggregate = await batch.wait(WAIT_S)
            assert (aggregate.status.total, aggregate.status.failed) == (1, 1)

    asyncio.run(scenario())


def test_operations_that_the_server_has_lost_end_with_an_error_that_says_so(
    start_worker: Any, farm_settings: Any
) -> None:
    async def scenario() -> None:
        async with half_done(farm_settings) as (batch, client, keys):
            await client.delete(keys.batch(batch.key, Part.PAYLOADS), keys.batch(batch.key, Part.CHUNKS))
            await look_now(client, keys)
            start_worker()
            aggregate = await batch.wait(WAIT_S)
            assert (aggregate.status.failed, aggregate.status.pending) == (20, 0)
            assert {error.kind for error in aggregate.errors.values()} == {ErrorKind.REJECTED}
            assert "the server has lost this operation" in next(iter(aggregate.errors.values())).message

    asyncio.run(scenario())


def test_a_fuzz_operation_whose_payload_is_lost_is_one_error(start_worker: Any, farm_settings: Any) -> None:
    async def scenario() -> None:
        keys = Keys(farm_settings["namespace"])
        async with Farm.connect(**farm_settings) as farm, Redis.from_url(farm_settings["url"]) as client:
            batch = await farm.submit([FuzzOperation(key="f", target="fuzzfarm.demo_targets:fuzz_power", examples=100)])
            await client.delete(keys.batch(batch.key, Part.PAYLOADS))
            start_worker()
            aggregate = await batch.wait(WAIT_S)
            assert (aggregate.status.total, aggregate.status.failed) == (1, 1)

    asyncio.run(scenario())


def test_a_batch_that_has_ended_is_not_looked_after(start_worker: Any, farm_settings: Any) -> None:
    async def scenario() -> None:
        async with half_done(farm_settings) as (batch, client, keys):
            assert await client.zscore(keys.open, batch.key) is not None
            start_worker()
            await batch.wait(WAIT_S)
            assert await client.zscore(keys.open, batch.key) is None
            assert await client.llen(keys.wake(next(iter(Lane)), Priority.NORMAL)) == 0  # type: ignore[misc]

    asyncio.run(scenario())


def test_shards_whose_payload_is_lost_while_they_run_make_one_outcome(start_worker: Any, farm_settings: Any) -> None:
    async def scenario() -> None:
        keys = Keys(farm_settings["namespace"])
        async with Farm.connect(**farm_settings) as farm, Redis.from_url(farm_settings["url"]) as client:
            for _ in range(2):
                start_worker()
            operation = FuzzOperation(key="f", target="farm_targets:fuzz_slowly", examples=400)
            batch = await farm.submit([operation])
            while not (await batch.status()).examples_done:
                await asyncio.sleep(0.05)
            await client.delete(keys.batch(batch.key, Part.PAYLOADS))
            aggregate = await batch.wait(WAIT_S)
            status = aggregate.status
            assert (status.total, status.succeeded + status.failed, status.pending) == (1, 1, 0)
            assert len([outcome async for outcome in batch.stream()]) == 1

    asyncio.run(scenario())


def test_a_chunk_that_comes_back_after_the_end_of_its_batch_is_not_run(
    start_worker: Any, farm_settings: Any, tmp_path: Any
) -> None:
    async def scenario() -> None:
        keys = Keys(farm_settings["namespace"])
        async with Farm.connect(**farm_settings) as farm, Redis.from_url(farm_settings["url"]) as client:
            batch = await farm.submit(
                [CallOperation(key="it", target="farm_targets:note", args=[str(tmp_path), "runs"])]
            )
            names = [keys.batch(batch.key, Part.PAYLOADS), keys.batch(batch.key, Part.CHUNKS)]
            names += [name.decode() for name in await client.keys(f"arq:job:{batch.key}/*")]
            copies = {name: await client.dump(name) for name in names}
            [attempt] = await client.zrange(keys.queue, 0, -1)
            start_worker()
            await batch.wait(WAIT_S)
            for name, copy in copies.items():
                await client.restore(name, 60_000, copy)
            await client.zadd(keys.queue, {attempt: 1})
            await client.rpush(keys.wake(Lane.SLOTS, Priority.NORMAL), attempt)  # type: ignore[misc]
            following = await farm.submit([CallOperation(key="it", target="farm_targets:echo")])
            await following.wait(WAIT_S)
            assert len((tmp_path / "runs").read_text().splitlines()) == 1
            assert (await batch.status()).pending == 0

    asyncio.run(scenario())
