"""Work spreads: what one worker cannot start at once, another one gets."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from books import until, until_workers

from fuzzfarm import CallOperation, Farm

WAIT_S = 30.0
STARTS_WITHIN_S = 1.0


def waiting_calls(folder: Path, count: int, function: str = "note_and_wait_for") -> list[CallOperation]:
    return [
        CallOperation(key=f"k{n}", target=f"farm_targets:{function}", args=[str(folder), f"k{n}", "go"])
        for n in range(count)
    ]


def started_on(folder: Path, pid: int) -> int:
    return sum(note.read_text() == f"{pid}\n" for note in folder.glob("k*"))


@pytest.mark.parametrize("chunk_operations", [1, 10, 1_000])
def test_a_second_worker_starts_what_a_full_one_cannot(
    start_worker: Any, farm_settings: Any, tmp_path: Path, chunk_operations: int
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings, chunk_operations=chunk_operations) as farm:
            first = start_worker(max_concurrency=100)
            batch = await farm.submit(waiting_calls(tmp_path, 150))
            await until(lambda: started_on(tmp_path, first.pid) == 100)
            second = start_worker(max_concurrency=100)
            await until_workers(farm, 2)
            alive_at = time.monotonic()
            await until(lambda: started_on(tmp_path, second.pid) == 50)
            assert time.monotonic() - alive_at < STARTS_WITHIN_S
            (tmp_path / "go").touch()
            aggregate = await batch.wait(WAIT_S)
            assert len(aggregate.results) == 150
            assert started_on(tmp_path, first.pid) + started_on(tmp_path, second.pid) == 150

    asyncio.run(scenario())


def test_the_unstarted_rest_of_a_claimed_chunk_goes_to_an_idle_worker(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            workers = [start_worker(max_concurrency=5) for _ in range(2)]
            await until_workers(farm, 2)
            batch = await farm.submit(waiting_calls(tmp_path, 10))  # one payload, so one chunk
            await until(lambda: all(started_on(tmp_path, worker.pid) == 5 for worker in workers), within_s=3.0)
            (tmp_path / "go").touch()
            assert len((await batch.wait(WAIT_S)).results) == 10
            assert (await batch.status()).late_duplicates == 0

    asyncio.run(scenario())


def test_slow_calls_that_were_pulled_behind_quick_ones_go_to_an_idle_worker(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            workers = [start_worker(max_concurrency=5) for _ in range(2)]
            await until_workers(farm, 2)
            quick = [CallOperation(key=str(n), target="farm_targets:echo") for n in range(2_000)]
            slow = waiting_calls(tmp_path, 10, function="note_and_block_until")
            batch = await farm.submit([*quick, *slow])  # one payload, so one chunk
            await until(lambda: all(started_on(tmp_path, worker.pid) == 5 for worker in workers), within_s=5.0)
            (tmp_path / "go").touch()
            assert len((await batch.wait(WAIT_S)).results) == 2_010
            assert (await batch.status()).late_duplicates == 0
            assert all(len(note.read_text().splitlines()) == 1 for note in tmp_path.glob("k*"))

    asyncio.run(scenario())


def test_outcomes_of_a_slow_chunk_are_seen_while_the_rest_of_it_runs(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    start_worker()

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            quick = CallOperation(key="quick", target="farm_targets:echo")
            batch = await farm.submit([*waiting_calls(tmp_path, 3), quick])
            async with asyncio.timeout(5.0):
                assert (await anext(batch.stream())).key == "quick"
            (tmp_path / "go").touch()
            await batch.wait(WAIT_S)

    asyncio.run(scenario())


def test_an_idle_worker_answers_within_milliseconds(start_worker: Any, farm_settings: Any) -> None:
    """The bar is in the benchmarks; here only that nobody polls."""
    start_worker()

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            times = []
            for _ in range(30):
                started = time.monotonic()
                batch = await farm.submit([CallOperation(target="farm_targets:echo")])
                await anext(batch.stream())
                times.append(time.monotonic() - started)
            assert sorted(times)[15] < 0.1

    asyncio.run(scenario())
