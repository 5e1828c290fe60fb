"""I1 to I7 together: a seeded schedule of kills, stops, cuts and restarts over a batch of 5,000, then the books.

`FUZZFARM_SOAK=1` runs 200, `FUZZFARM_CHAOS_RUNS` says another number. A seed that failed is run again by its name.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import Chaos, chaos

from fuzzfarm import Batch, CallOperation, ErrorKind, Farm, SubprocessJob, SubprocessResult
from fuzzfarm_shared.operations import AnyOperation

OPERATIONS = 5_000
KILLER = "2500"
WAIT_S = 90.0
RUNS = int(os.environ.get("FUZZFARM_CHAOS_RUNS") or (200 if os.environ.get("FUZZFARM_SOAK") else 3))

pytestmark = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")


def operations() -> Iterator[AnyOperation]:
    """Calls, calls in children, jobs, and one call that kills its worker."""
    for number in range(OPERATIONS):
        key = str(number)
        if key == KILLER:
            yield CallOperation(key=key, target="farm_targets:kill_self")
        elif number % 100 == 1:
            yield SubprocessJob(key=key, command=["sh", "-c", f"sleep 0.02; echo {number}"])
        elif number % 100 == 2:
            yield CallOperation(key=key, target="farm_targets:echo", args=[number], isolation="child")
        else:
            yield CallOperation(key=key, target="farm_targets:pause", args=[0.1, number])


def value_of(number: int) -> object:
    return f"{number}\n" if number % 100 == 1 else number


async def submit_with_a_break(farm: Farm, key: str, first_s: float) -> Batch:
    """Submit, stop in the middle, and submit again."""
    first = asyncio.create_task(farm.submit(operations(), key))
    await asyncio.wait([first], timeout=first_s)
    first.cancel()
    await asyncio.wait([first])
    return await farm.submit(operations(), key)


async def cancel_another(farm: Farm, after_s: float) -> Batch:
    endless = [SubprocessJob(command=["sleep", "600"], timeout_s=None)] * 20
    batch = await farm.submit([*endless, *(CallOperation(target="farm_targets:echo") for _ in range(500))])
    await asyncio.sleep(after_s)
    await batch.cancel()
    return batch


async def check_books(batch: Batch) -> None:
    """Every key came once, with its own value; only what kills failed."""
    outcomes = {outcome.key: outcome async for outcome in batch.stream()}
    seen = Counter([outcome.key async for outcome in batch.stream()])
    assert set(seen) == set(map(str, range(OPERATIONS)))
    assert set(seen.values()) == {1}
    assert {key: outcome.error for key, outcome in outcomes.items() if outcome.error and key != KILLER} == {}
    status = await batch.status()
    assert (status.total, status.succeeded, status.failed, status.pending) == (OPERATIONS, OPERATIONS - 1, 1, 0)
    error = outcomes.pop(KILLER).error
    assert error is not None
    assert error.kind in {ErrorKind.KILLED, ErrorKind.WORKER_LOST}
    for key, outcome in outcomes.items():
        value = outcome.value.stdout if isinstance(outcome.value, SubprocessResult) else outcome.value
        assert value == value_of(int(key))


async def run(trouble: Chaos) -> None:
    choose = trouble.choose
    async with Farm.connect(trouble.url, namespace=trouble.namespace, chunk_operations=200) as farm:
        async with asyncio.timeout(WAIT_S):
            while len(await farm.workers()) < len(trouble.hosts):
                await asyncio.sleep(0.05)
        troubling = asyncio.create_task(trouble.trouble(8))
        submitting = asyncio.create_task(submit_with_a_break(farm, "batch", choose.uniform(0.0, 0.05)))
        cancelling = asyncio.create_task(cancel_another(farm, choose.uniform(0.2, 2.0)))
        batch = await submitting
        cancelled = await cancelling
        await troubling
        assert not (await batch.status()).done, "the trouble came too late to matter: make the batch longer"
        async with asyncio.timeout(WAIT_S):
            await batch.wait()
            await cancelled.wait()
        await check_books(batch)
        status = await cancelled.status()
        assert (status.done, status.pending) == (True, 0)
        assert status.total == status.succeeded + status.failed + status.cancelled
        assert await trouble.keys_without_ttl() == []
    await asyncio.to_thread(trouble.stop)
    assert trouble.left_over() == []


@pytest.mark.parametrize("seed", range(RUNS))
def test_the_books_balance_after_any_trouble(seed: int, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with chaos(seed, tmp_path) as trouble:
            try:
                await run(trouble)
            except (AssertionError, TimeoutError) as exc:
                exc.add_note(f"seed {seed}, trouble so far: {', '.join(trouble.done)}")
                raise

    asyncio.run(scenario())
