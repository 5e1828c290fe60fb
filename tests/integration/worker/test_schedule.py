"""Priorities and deadlines of batches, as workers keep them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from books import until_workers
from redis.asyncio import Redis

from fuzzfarm import Batch, CallOperation, ErrorKind, Farm, InvalidOperationError, Priority, SubprocessJob
from fuzzfarm_shared.keys import Keys, Part

WAIT_S = 30.0


def order_of_runs(folder: Path) -> list[str]:
    return (folder / "order").read_text().split() if (folder / "order").exists() else []


def appending(folder: Path, word: str, count: int) -> list[CallOperation]:
    return [
        CallOperation(key=f"{word}{n}", target="farm_targets:append_word", args=[str(folder), word])
        for n in range(count)
    ]


def test_urgent_batches_go_first_and_the_others_keep_their_floor(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings, chunk_operations=1) as farm:
            batches: list[Batch] = []
            for priority, chunks in (("low", 3), ("normal", 3), (Priority.HIGH, 40)):
                operations = appending(tmp_path, Priority(priority).value, chunks)
                batches.append(await farm.submit(iter(operations), priority=priority))
            assert [(await batch.status()).priority for batch in batches] == ["low", "normal", "high"]
            start_worker(max_concurrency=1)
            for batch in batches:
                await batch.wait(WAIT_S)

    asyncio.run(scenario())
    words = order_of_runs(tmp_path)
    assert len(words) == 46
    # Of ten chunks one is low, one normal and the others high, as long as there are any.
    assert words[:20].count("high") >= 14
    assert {"low", "normal"} <= set(words[:20])


def test_the_queue_limit_counts_each_priority_for_itself(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings, chunk_operations=1, queue_limit=2) as farm:
            await farm.submit([CallOperation(target="farm_targets:echo")] * 2, priority="low")
            async with asyncio.timeout(WAIT_S):
                await farm.submit([CallOperation(target="farm_targets:echo")], priority="high", wait=False)

    asyncio.run(scenario())


def test_what_has_no_outcome_at_the_deadline_gets_an_error_and_what_runs_is_stopped(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings, chunk_operations=2) as farm:
            start_worker(max_concurrency=2)
            await until_workers(farm, 1)
            done = CallOperation(key="done", target="farm_targets:echo", args=[1])
            endless = [SubprocessJob(key=f"job{n}", command=["sleep", "600"], timeout_s=None) for n in range(4)]
            batch = await farm.submit([done, *endless], deadline_s=2.0)
            aggregate = await batch.wait(WAIT_S)
            assert aggregate.results == {"done": 1}
            assert {error.kind for error in aggregate.errors.values()} == {ErrorKind.DEADLINE}
            messages = {error.message for error in aggregate.errors.values()}
            assert messages == {
                "the deadline of the batch passed while this operation ran",
                "the deadline of the batch passed before this operation ran",
            }
            status = await batch.status()
            assert (status.state, status.failed, status.cancelled, status.pending) == ("done", 4, 0, 0)
            assert status.deadline_at is not None
            assert status.finished_at is not None
            assert status.finished_at - status.deadline_at < 3.0

    asyncio.run(scenario())


def test_a_short_deadline_leaves_time_to_begin(start_worker: Any, farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker()
            await until_workers(farm, 1)
            for _ in range(3):  # wherever in a second it falls
                batch = await farm.submit([SubprocessJob(key="it", command=["sleep", "60"])], deadline_s=0.6)
                error = (await batch.wait(WAIT_S)).errors["it"]
                assert error.message == "the deadline of the batch passed while this operation ran"

    asyncio.run(scenario())


def test_a_batch_that_ends_before_its_deadline_keeps_its_results(start_worker: Any, farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker()
            batch = await farm.submit(CallOperation.many("farm_targets:echo", range(10)), deadline_s=60)
            assert len((await batch.wait(WAIT_S)).results) == 10
            async with Redis.from_url(farm_settings["url"]) as client:
                assert await client.zscore(Keys(farm_settings["namespace"]).open, batch.key) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("deadline_s", [0, -1.0, float("nan"), 10**12])
def test_a_deadline_that_cannot_be_one_is_refused(farm_settings: Any, deadline_s: float) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            with pytest.raises(InvalidOperationError, match="cannot be a deadline: give seconds"):
                await farm.submit([CallOperation(target="m:f")], deadline_s=deadline_s)

    asyncio.run(scenario())


def test_a_word_that_is_no_priority_is_refused(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            with pytest.raises(InvalidOperationError, match="'urgent' is no priority: use high, normal, low"):
                await farm.submit([CallOperation(target="m:f")], priority="urgent")

    asyncio.run(scenario())


def test_a_deadline_that_only_the_server_says_stops_nothing(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    """Who can write to the server alone cannot end a batch early: the signed payloads say another time, or none."""
    key = "k" * 32

    async def scenario() -> None:
        async with (
            Farm.connect(**farm_settings, signing_key=key) as farm,
            Redis.from_url(farm_settings["url"]) as client,
        ):
            start_worker(signing_key=key)
            waiting = CallOperation(
                key="it", target="farm_targets:note_and_wait_for", args=[str(tmp_path), "it", "go"], timeout_s=None
            )
            batch = await farm.submit([waiting])
            meta = Keys(farm_settings["namespace"]).batch(batch.key, Part.META)
            async with asyncio.timeout(WAIT_S):
                while not (tmp_path / "it").exists():
                    await asyncio.sleep(0.01)
                await client.hset(meta, "stop", "deadline")  # type: ignore[misc]
                # Two renewals, each of which tells the worker of it, and it goes on.
                await asyncio.sleep(2.2)
            (tmp_path / "go").touch()
            assert (await batch.wait(WAIT_S)).results == {"it": "it"}
            assert len((tmp_path / "it").read_text().splitlines()) == 1

    asyncio.run(scenario())
