"""The calls that people know from other executors, in the shapes in which they write them."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st

from fuzzfarm_worker import AsyncExecutor, AsyncFuzzExecutor, ExecutorShutdownError, WaitStrategy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


async def double(value: int) -> int:
    await asyncio.sleep(0)
    return value * 2


async def odd_only(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"even: {value}")
    return value


def test_gather_over_results_and_a_semaphore_of_its_own(run: Any) -> None:
    async def main() -> None:
        limit, running, most = asyncio.Semaphore(5), 0, 0

        async def request(number: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            return number

        async with AsyncExecutor(max_workers=100) as executor:
            futures = [executor.submit(request, number, semaphore=limit) for number in range(50)]
            assert await asyncio.gather(*[future.result() for future in futures]) == list(range(50))
        assert 1 < most <= 5

    run(main())


def test_map_over_one_iterable_over_two_and_over_batches(run: Any) -> None:
    def chunks(items: Iterable[int], size: int) -> Iterator[list[int]]:
        iterator = iter(items)
        while chunk := list(itertools.islice(iterator, size)):
            yield chunk

    async def double_all(items: list[int]) -> list[int]:
        return [await double(item) for item in items]

    async def main() -> None:
        async with AsyncExecutor(max_workers=5) as executor:
            assert await executor.map(double, range(10)) == [value * 2 for value in range(10)]
            assert await executor.map(max, [1, 5, 3], [4, 2, 6]) == [4, 5, 6]
            batches = await executor.map(double_all, chunks(range(250), 100))
            assert [item for batch in batches for item in batch] == [value * 2 for value in range(250)]
            assert [value async for value in executor.map_iter(double, range(10))] == list(range(0, 20, 2))

    run(main())


def test_the_first_match_of_as_completed_ends_the_search(run: Any) -> None:
    async def search(source: int) -> int | None:
        if source != 3:
            await asyncio.Event().wait()
        return source

    async def main() -> None:
        executor = AsyncExecutor(max_workers=5)
        futures = [executor.submit(search, source) for source in range(5)]
        async for future in executor.as_completed(futures):
            assert await future.result() == 3
            break
        for future in futures:
            future.cancel()
        await executor.shutdown()

    run(main())


def test_the_three_ways_to_wait(run: Any) -> None:
    async def main() -> None:
        held = asyncio.Event()
        async with AsyncExecutor(max_workers=5) as executor:
            futures = [executor.submit(double, 1), executor.submit(held.wait), executor.submit(odd_only, 2)]
            done, pending = await executor.wait(futures, return_when=WaitStrategy.FIRST_EXCEPTION)
            assert futures[2] in done
            assert futures[1] in pending
            done, _ = await executor.wait(futures, return_when=WaitStrategy.FIRST_COMPLETED)
            assert done
            held.set()
            done, pending = await executor.wait(futures)
            assert (len(done), len(pending)) == (3, 0)

    run(main())


def test_retries_count_the_tries_after_the_first(run: Any) -> None:
    async def main() -> None:
        tries = 0

        async def flaky() -> str:
            nonlocal tries
            tries += 1
            if tries < 4:
                raise ConnectionError("not yet")
            return "at last"

        async with AsyncExecutor(max_workers=3) as executor:
            assert await executor.submit(flaky, retries=3, retry_delay=0.0).result() == "at last"
            assert tries == 4

    run(main())


def test_a_late_result_and_a_failed_one_are_caught_as_usual(run: Any) -> None:
    async def main() -> None:
        async with AsyncExecutor(max_workers=2) as executor:
            future = executor.submit(asyncio.Event().wait)
            with pytest.raises(asyncio.TimeoutError):
                await future.result(timeout=0.0)
            assert future.exception() is None
            future.cancel()
            failed = executor.submit(odd_only, 2)
            with pytest.raises(ValueError, match="even: 2"):
                await failed.result()
            assert isinstance(failed.exception(), ValueError)

    run(main())


def test_shutdown_at_once_cancels_what_is_queued(run: Any) -> None:
    async def main() -> None:
        executor, held = AsyncExecutor(max_workers=1), asyncio.Event()
        running, queued = executor.submit(held.wait), executor.submit(double, 1)
        await asyncio.sleep(0)
        await executor.shutdown(wait=False, cancel_futures=True)
        assert queued.cancelled()
        with pytest.raises(ExecutorShutdownError):
            executor.submit(double, 2)
        held.set()
        assert await running is True  # what runs ends by itself

    run(main())


def test_a_batch_of_triples_with_lists_of_arguments_async_and_sync(run: Any) -> None:
    def total() -> int:
        return sum(range(1_000))

    async def main() -> None:
        executor = AsyncFuzzExecutor(max_concurrency=5)
        try:
            operations: list[Any] = [(double, [5], {}), (double, [], {"value": 10}), (total, [], {})]
            assert (await executor.execute_batch(operations))["results"] == [10, 20, 499_500]
            outcomes = await executor.execute_batch(
                [(odd_only, [number], {}) for number in range(10)], collect_results=True, collect_errors=True
            )
            assert outcomes["results"] == [1, 3, 5, 7, 9]
            assert [str(error) for error in outcomes["errors"]] == [f"even: {number}" for number in range(0, 10, 2)]
            assert 0 <= await executor.run_hypothesis_strategy(st.integers(min_value=0, max_value=100)) <= 100
            assert await executor.execute(double, 4, timeout=120.0) == 8
        finally:
            await executor.shutdown()

    run(main())


def test_the_retries_of_the_executor_hold_where_none_are_given(run: Any) -> None:
    async def main() -> None:
        tries = 0

        async def fails() -> None:
            nonlocal tries
            tries += 1
            raise ConnectionError(f"try {tries}")

        async with AsyncFuzzExecutor(max_concurrency=2, timeout=5.0, retry_count=3, retry_delay=0.0) as executor:
            with pytest.raises(ConnectionError, match="try 4"):
                await executor.execute_with_retry(fails)

    run(main())
