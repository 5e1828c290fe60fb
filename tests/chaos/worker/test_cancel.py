"""Cancelling a batch: what runs is gone within a second, and every operation is accounted for."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from books import WAIT_S, check_books, runs, until, until_workers, waiting_calls
from children import all_end, watched

from fuzzfarm import CallOperation, ErrorKind, Farm, SubprocessJob

GONE_WITHIN_S = 1.0
JOBS = 64

pytestmark = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")


def processes(argument: str) -> list[int]:
    """Pids of all processes that have an argument like this."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if argument.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


@pytest.mark.parametrize(
    ("command", "processes_each"),
    [(["sleep", "60.{unique}"], 1), (["sh", "-c", "trap '' TERM; sleep 60.{unique} & wait"], 2)],
    ids=["that end when asked", "that have to be killed with what they started"],
)
def test_cancelling_kills_all_running_jobs_within_a_second(
    start_worker: Any, farm_settings: Any, command: list[str], processes_each: int
) -> None:
    """Seen to fail without the cancellation of what runs (`_end` in chunks/attempt.py)."""
    unique = str(secrets.randbelow(10**12))

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(max_concurrency=JOBS)
            job = [part.format(unique=unique) for part in command]
            batch = await farm.submit([SubprocessJob(key=f"k{n}", command=job, timeout_s=None) for n in range(JOBS)])
            await until(lambda: len(processes(unique)) == JOBS * processes_each)
            with watched(processes(unique)) as fds:
                gone = asyncio.create_task(asyncio.to_thread(all_end, fds, GONE_WITHIN_S))
                assert await batch.cancel() == JOBS
                assert await gone
            assert processes(unique) == []
            assert (await check_books(batch, {f"k{n}" for n in range(JOBS)})).cancelled == JOBS

    asyncio.run(scenario())


def test_a_cancelled_batch_accounts_for_what_was_done_what_ran_and_what_waited(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    """The worker that ran them is killed just before: whoever lives accounts for its operations.

    Seen to fail without the take-over (`most = 0` in take_over.lua).
    """
    done = [CallOperation(key=f"done{n}", target="farm_targets:echo", args=[n]) for n in range(20)]
    running = [
        *waiting_calls(tmp_path, 4),
        *(SubprocessJob(key=f"job{n}", command=["sleep", "600"], timeout_s=None) for n in range(4)),
        CallOperation(key="thread", target="farm_targets:note_and_block_until", args=[str(tmp_path), "t", "go"]),
        CallOperation(key="child", target="farm_targets:block", args=[600], isolation="child", timeout_s=None),
    ]
    waiting = [CallOperation(key=f"wait{n}", target="farm_targets:echo", args=[n]) for n in range(500)]
    keys = {str(operation.key) for operation in [*done, *running, *waiting]}

    async def scenario() -> None:
        async with Farm.connect(**farm_settings, chunk_operations=20) as farm:
            killed = start_worker(max_concurrency=10, lease_s=0.5, renew_every_s=0.1)
            await until_workers(farm, 1)
            batch = await farm.submit(iter([*done, *running, *waiting]))
            await until(lambda: len(runs(tmp_path)) == 4 and (tmp_path / "t").exists())
            other = start_worker(max_concurrency=1, lease_s=0.5, renew_every_s=0.1)
            await until_workers(farm, 2)
            killed.kill()
            await batch.cancel()
            status = await check_books(batch, keys)
            (tmp_path / "go").touch()
            aggregate = await batch.wait(WAIT_S)
            assert {f"done{n}" for n in range(20)} <= set(aggregate.results)
            assert {str(operation.key) for operation in running} <= set(aggregate.errors)
            assert {error.kind for error in aggregate.errors.values()} == {ErrorKind.CANCELLED}
            assert (status.state, status.cancelled) == ("cancelled", len(aggregate.errors))
            assert other.poll() is None
            assert len(runs(tmp_path)) == 4

    asyncio.run(scenario())
