"""AsyncExecutor: the shape of concurrent.futures, member by member."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from fuzzfarm_shared.futures import ExecutorShutdownError, WaitStrategy
from fuzzfarm_worker.executors.async_executor import AsyncExecutor
from fuzzfarm_worker.executors.errors import OperationTimeoutError

if TYPE_CHECKING:
    pass


async def square(number: int) -> int:
    await asyncio.sleep(0)
    return number * number


async def forever() -> None:
    await asyncio.Event().wait()


async def fail(error: BaseException) -> None:
    raise error


def test_submit_gives_a_future_at_once_and_runs_async_and_sync_functions(run: Any) -> None:
    async def main() -> None:
        async with AsyncExecutor(max_workers=3) as executor:
            futures = [executor.submit(square, 7), executor.submit(pow, 7, 2), executor.submit(lambda: square(7))]
            assert not futures[0].done()
            assert [await futures[0].result(), await futures[1], await futures[2].result(timeout=5)] == [49] * 3
            with pytest.raises(ValueError, match="boom"):
                await executor.submit(fail, ValueError("boom"))

    run(main())


def test_it_needs_a_worker_and_is_made_without_a_loop() -> None:
    with pytest.raises(ValueError, match="max_workers must be at least 1"):
        AsyncExecutor(max_workers=0)
    executor = AsyncExecutor()
    assert executor.max_workers == 5

    async def main() -> None:
        assert await executor.submit(square, 3).result() == 9

    asyncio.run(main())
    asyncio.run(main())


def test_a_failed_task_is_retried_and_the_last_error_tells_of_the_earlier_ones(run: Any) -> None:
    async def main() -> None:
        tries = itertools.count(1)

        async def flaky(until: int) -> int:
            number = next(tries)
            if number < until:
                raise ValueError(f"try {number}")
            return number

        async with AsyncExecutor() as executor:
            assert await executor.submit(flaky, 3, retries=3, retry_delay=0.001).result() == 3
            with pytest.raises(ValueError, match="try 6") as caught:
                await executor.submit(flaky, 100, retries=2, retry_delay=0.001)
            assert caught.value.__notes__ == ["attempt 1: ValueError: try 4", "attempt 2: ValueError: try 5"]

    run(main())


def test_a_task_that_waits_for_its_semaphore_holds_no_worker(run: Any) -> None:
    async def main() -> None:
        semaphore = asyncio.Semaphore(1)
        await semaphore.acquire()
        async with AsyncExecutor(max_workers=1) as executor:
            gated = [executor.submit(square, 2, semaphore=semaphore) for _ in range(3)]
            assert await executor.submit(square, 3) == 9
            assert not any(future.done() for future in gated)
            assert gated[1].cancel()
            semaphore.release()
            assert [await gated[0], await gated[2]] == [4, 4]
        assert not semaphore.locked()

    run(main())


def test_a_semaphore_bounds_its_tasks_below_the_workers(run: Any) -> None:
    async def main() -> None:
        semaphore = asyncio.Semaphore(2)
        inside = most = 0

        async def operation() -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1

        async with AsyncExecutor(max_workers=10) as executor:
            await executor.wait([executor.submit(operation, semaphore=semaphore) for _ in range(12)])
        assert most == 2

    run(main())


def test_a_queued_task_is_cancelled_at_once_and_a_running_one_at_its_next_suspension(run: Any) -> None:
    async def main() -> None:
        executor = AsyncExecutor(max_workers=1)
        started = asyncio.Event()

        async def operation() -> None:
            started.set()
            await forever()

        running, queued = executor.submit(operation), executor.submit(square, 2)
        await started.wait()
        assert queued.cancel()
        assert queued.cancelled()
        assert running.cancel()
        assert not running.done()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await executor.submit(square, 4) == 16
        await executor.shutdown()

    run(main())


def test_a_task_that_waits_for_its_retry_can_be_cancelled(run: Any) -> None:
    async def main() -> None:
        executor = AsyncExecutor(max_workers=1)
        failed = asyncio.Event()

        async def operation() -> None:
            failed.set()
            raise ValueError

        future = executor.submit(operation, retries=1, retry_delay=60)
        await failed.wait()
        await executor.submit(square, 1)
        assert future.cancel()
        assert future.cancelled()
        await executor.shutdown()

    run(main())


def test_map_keeps_the_order_zips_and_cancels_the_rest_on_the_first_error(run: Any) -> None:
    async def main() -> None:
        cancelled = 0
        all_started = asyncio.Event()

        async def operation(number: int) -> None:
            nonlocal cancelled
            if number == 3:
                all_started.set()
                raise LookupError(number)
            try:
                await forever()
            except asyncio.CancelledError:
                cancelled += 1
                raise

        async with AsyncExecutor(max_workers=4) as executor:
            assert await executor.map(square, range(100)) == [n * n for n in range(100)]
            assert await executor.map(pow, [1, 2, 3], [2, 2, 2, 2]) == [1, 4, 9]
            assert await executor.map(square, []) == []
            with pytest.raises(LookupError):
                await executor.map(operation, itertools.count())
            assert cancelled == 3
            with pytest.raises(OperationTimeoutError):
                await executor.map(lambda _: forever(), range(3), timeout=0.01)
            assert await executor.map(square, [5]) == [25]

    run(main())


def test_map_iter_pulls_lazily_and_leaving_it_cancels_what_is_left(run: Any) -> None:
    async def main() -> None:
        pulled = 0
        cancelled = asyncio.Event()

        def numbers() -> Any:
            nonlocal pulled
            for pulled in itertools.count():  # noqa: UP028
                yield pulled

        async def operation(number: int) -> int:
            if number == 12:
                try:
                    await forever()
                except asyncio.CancelledError:
                    cancelled.set()
                    raise
            return number

        async with AsyncExecutor(max_workers=2) as executor:
            received = []
            async for number in executor.map_iter(operation, numbers(), prefetch=8):
                received.append(number)
                if number == 10:
                    break
            await cancelled.wait()
        assert received == list(range(11))
        assert pulled < 20

    run(main())


def test_map_iter_raises_the_error_at_its_place_and_ends(run: Any) -> None:
    async def main() -> None:
        async with AsyncExecutor(max_workers=2) as executor:
            results = executor.map_iter(lambda n: 1 // n, [1, 1, 0, 1])
            assert [await anext(results), await anext(results)] == [1, 1]
            with pytest.raises(ZeroDivisionError):
                await anext(results)
            with pytest.raises(StopAsyncIteration):
                await anext(results)

            def broken() -> Any:
                yield 1
                raise LookupError("input")

            with pytest.raises(LookupError, match="input"):
                assert [n async for n in executor.map_iter(square, broken())]
            with pytest.raises(ValueError, match="prefetch"):
                executor.map_iter(square, [], prefetch=0)

    run(main())


def test_shutdown_ends_an_iterator_that_was_left_open(run: Any) -> None:
    async def main() -> None:
        executor = AsyncExecutor(max_workers=2)
        results = executor.map_iter(square, itertools.count())
        assert await anext(results) == 0
        await executor.shutdown()
        with pytest.raises(ExecutorShutdownError):  # noqa: PT012
            while True:
                await anext(results)

    run(main())


def test_as_completed_and_wait_take_its_futures(run: Any) -> None:
    async def main() -> None:
        release = asyncio.Event()
        async with AsyncExecutor(max_workers=2) as executor:
            slow, fast = executor.submit(release.wait), executor.submit(square, 2)
            order = []
            async for future in executor.as_completed([slow, fast]):
                order.append(future)
                release.set()
            assert order == [fast, slow]
            done, pending = await executor.wait([slow, fast], return_when=WaitStrategy.FIRST_COMPLETED)
            assert (done, pending) == ({slow, fast}, set())

    run(main())


def test_after_shutdown_nothing_is_accepted(run: Any) -> None:
    async def main() -> None:
        executor = AsyncExecutor()
        future = executor.submit(square, 2)
        await executor.shutdown(wait=True)
        assert await future == 4
        with pytest.raises(ExecutorShutdownError):
            executor.submit(square, 2)
        with pytest.raises(ExecutorShutdownError):
            await executor.map(square, [2])
        with pytest.raises(ExecutorShutdownError):
            executor.map_iter(square, [2])
        await executor.shutdown()

    run(main())


def test_shutdown_without_waiting_lets_everything_submitted_finish(run: Any) -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        executor = AsyncExecutor(max_workers=1)
        futures = [executor.submit(square, number) for number in range(5)]
        await executor.shutdown(wait=False)
        assert not futures[4].done()
        assert [await future for future in futures] == [0, 1, 4, 9, 16]
        await asyncio.wait(asyncio.all_tasks() - before)

    run(main())


def test_shutdown_with_cancel_futures_cancels_only_what_is_queued(run: Any) -> None:
    async def main() -> None:
        executor = AsyncExecutor(max_workers=1)
        started, release = asyncio.Event(), asyncio.Event()

        async def operation() -> str:
            started.set()
            await release.wait()
            return "finished"

        running, queued = executor.submit(operation), executor.submit(square, 2)
        await started.wait()
        await executor.shutdown(wait=False, cancel_futures=True)
        assert queued.cancelled()
        release.set()
        assert await running == "finished"

    run(main())


def test_leaving_by_an_exception_cancels_what_is_queued(run: Any) -> None:
    async def main() -> None:
        release = asyncio.Event()
        futures = []
        with pytest.raises(LookupError):  # noqa: PT012
            async with AsyncExecutor(max_workers=1) as executor:
                futures = [executor.submit(release.wait) for _ in range(3)]
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                asyncio.get_running_loop().call_soon(release.set)
                raise LookupError
        assert [future.cancelled() for future in futures] == [False, True, True]

    run(main())


def test_leaving_by_an_exception_waits_for_no_retry(run: Any) -> None:
    async def main() -> None:
        future = None
        with pytest.raises(LookupError):  # noqa: PT012
            async with AsyncExecutor(max_workers=1) as executor:
                future = executor.submit(fail, ValueError("boom"), retries=1, retry_delay=600.0)
                assert await executor.submit(square, 2) == 4  # behind it, so that its first try is over
                raise LookupError
        assert future is not None
        assert future.cancelled()

    run(main())


def test_a_task_factory_that_fails_once_leaves_nothing_half_open(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def refuse(*_: Any, **__: Any) -> asyncio.Task[Any]:
            raise LookupError("no tasks now")

        async with AsyncExecutor() as executor:
            loop.set_task_factory(refuse)
            with pytest.raises(LookupError):
                executor.submit(square, 2)
            loop.set_task_factory(None)
            assert await executor.submit(square, 2) == 4

    run(main())


def test_its_workers_really_overlap_and_never_exceed_their_number(run: Any) -> None:
    async def main() -> None:
        barrier = threading.Barrier(4)
        async with AsyncExecutor(max_workers=4) as executor:
            started = time.monotonic()
            await executor.map(lambda _: barrier.wait(5), range(16))
            assert time.monotonic() - started < 5

    run(main())


@pytest.mark.parametrize("kind", ["asyncio.sleep", "time.sleep"])
def test_the_interpreter_exits_cleanly_with_an_executor_left_open(kind: str) -> None:
    code = f"""
import asyncio, time
from fuzzfarm_worker.executors.async_executor import AsyncExecutor
async def main():
    executor = AsyncExecutor(2)
    futures = [executor.submit({kind}, 1000) for _ in range(5)]
    await asyncio.sleep(0.05)
asyncio.run(main())
print("left")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
