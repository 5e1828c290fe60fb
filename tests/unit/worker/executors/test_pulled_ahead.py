"""Sync calls that were pulled ahead of the threads have not started: they can still be cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fuzzfarm_worker.executors.async_executor import AsyncExecutor

if TYPE_CHECKING:
    from fuzzfarm_shared.futures import AsyncFuture

WORKERS = 2
WAIT_S = 30.0


class Slow:
    """A sync function that tells what it ran, and returns when it is let go."""

    def __init__(self) -> None:
        self.begun: set[int] = set()
        self.gate = threading.Event()

    def __call__(self, number: int) -> int:
        self.begun.add(number)
        assert self.gate.wait(WAIT_S)
        return number


async def behind_quick_calls(executor: AsyncExecutor, slow: Slow, *, retries: int = 0) -> list[AsyncFuture[Any]]:
    """Submit slow calls behind quick ones, which make the executor pull far ahead, and wait until they fill it."""
    quick = [executor.submit(abs, number) for number in range(1_000)]
    futures = [executor.submit(slow, number, retries=retries) for number in range(4_000)]
    await executor.wait(quick)
    while len(slow.begun) < WORKERS:
        await asyncio.sleep(0.001)
    return futures


@pytest.mark.parametrize("newest_first", [False, True])
def test_each_can_be_cancelled_until_it_starts(run: Any, newest_first: bool) -> None:
    async def main() -> None:
        slow = Slow()
        async with AsyncExecutor(max_workers=WORKERS) as executor:
            futures = await behind_quick_calls(executor, slow)
            taken_back = {future for future in (reversed(futures) if newest_first else futures) if future.cancel()}
            slow.gate.set()
        assert len(slow.begun) == WORKERS
        assert [number for number, future in enumerate(futures) if future not in taken_back] == sorted(slow.begun)
        assert all(future.cancelled() for future in taken_back)

    run(main())


def test_leaving_by_an_exception_cancels_them(run: Any) -> None:
    async def main() -> None:
        slow = Slow()
        futures = []
        with pytest.raises(LookupError):  # noqa: PT012
            async with AsyncExecutor(max_workers=WORKERS) as executor:
                futures = await behind_quick_calls(executor, slow)
                futures[-1].add_done_callback(lambda _: slow.gate.set())
                raise LookupError
        assert len(slow.begun) == WORKERS
        assert {number for number, future in enumerate(futures) if not future.cancelled()} == slow.begun

    run(main())


def test_what_is_cancelled_lets_go_of_its_arguments_and_the_rest_goes_on(run: Any) -> None:
    async def main() -> None:
        slow = Slow()
        async with AsyncExecutor(max_workers=WORKERS) as executor:
            futures = await behind_quick_calls(executor, slow)
            kept = futures[-10:]
            for future in futures[:-10]:
                future.cancel()
            slow.gate.set()
            assert [await future for future in kept] == list(range(3_990, 4_000))
        assert slow.begun.issuperset(range(3_990, 4_000))
        assert len(slow.begun) == WORKERS + 10

    run(main())
