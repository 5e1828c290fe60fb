"""A worker that is short of memory: it takes less, says so, and still does its work."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fuzzfarm import CallOperation, Farm, WorkerReport

WAIT_S = 30.0
ALWAYS_SHORT = 0.999
"""No system that runs tests has so much of its memory free."""


async def report_after(farm: Farm, moment: float) -> WorkerReport:
    """Return what the one worker says after `moment`."""
    async with asyncio.timeout(WAIT_S):
        while True:
            for report in await farm.workers():
                if report.reported_at > moment:
                    return report
            await asyncio.sleep(0.02)


async def exists(path: Path) -> None:
    async with asyncio.timeout(WAIT_S):
        while not path.exists():
            await asyncio.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/meminfo")
@pytest.mark.parametrize(("reserve", "held"), [(ALWAYS_SHORT, 1), (0, 2)], ids=["short", "enough"])
def test_a_worker_that_is_short_of_memory_takes_one_chunk_after_the_other(
    start_worker: Any, farm_settings: Any, tmp_path: Path, reserve: float, held: int
) -> None:
    start_worker(memory_reserve=reserve)

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            names = ("first", "second")
            arguments = [[str(tmp_path), name, "release"] for name in names]
            operations = [CallOperation(target="farm_targets:note_and_wait_for", args=args) for args in arguments]
            first = await farm.submit(operations[:1])
            await exists(tmp_path / "first")
            second = await farm.submit(operations[1:])
            report = await report_after(farm, time.time() + 0.5)  # it would have taken it within milliseconds
            assert (report.chunks, report.under_pressure) == (held, held == 1)
            assert (await farm.queue()).waiting == 2 - held
            (tmp_path / "release").touch()
            for batch, name in zip((first, second), names, strict=True):
                assert (await batch.wait(WAIT_S)).results == {"0": name}

    asyncio.run(scenario())
