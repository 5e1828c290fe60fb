"""The books of a batch, and how far operations that wait for the test have come."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fuzzfarm import Batch, BatchStatus, CallOperation, Farm

WAIT_S = 40.0


async def until(condition: Callable[[], bool], within_s: float = WAIT_S) -> None:
    """Wait for what cannot be awaited; TimeoutError after `within_s`."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def until_workers(farm: Farm, count: int) -> None:
    """Wait until so many workers have reported."""
    async with asyncio.timeout(WAIT_S):
        while len(await farm.workers()) < count:
            await asyncio.sleep(0.02)


def waiting_calls(folder: Path, count: int) -> list[CallOperation]:
    """Operations that note their worker's pid in a file of their own and end when there is a file `go`."""
    return [
        CallOperation(key=f"k{n}", target="farm_targets:note_and_wait_for", args=[str(folder), f"k{n}", "go"])
        for n in range(count)
    ]


def runs(folder: Path) -> list[int]:
    """The worker's pid of each run of the operations in `folder`."""
    return [int(line) for note in folder.glob("k*") for line in note.read_text().splitlines()]


async def check_books(batch: Batch, keys: set[str]) -> BatchStatus:
    """Wait for the end; every key came exactly once, and the counters say so too."""
    await batch.wait(WAIT_S)
    seen = Counter([outcome.key async for outcome in batch.stream()])
    assert set(seen) == keys
    assert set(seen.values()) == {1}
    status = await batch.status()
    assert (status.total, status.pending, status.done) == (len(keys), 0, True)
    assert status.succeeded + status.failed + status.cancelled == len(keys)
    return status
