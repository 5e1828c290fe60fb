"""Futures, and waiting for many of them, without any executor."""

from __future__ import annotations

import asyncio
import gc
import logging
import time

import pytest

from fuzzfarm_shared.futures import AsyncFuture, WaitStrategy, as_completed, wait


def made(count: int) -> list[AsyncFuture[int]]:
    return [AsyncFuture() for _ in range(count)]


def test_a_future_can_be_awaited_before_and_after_it_is_done_by_many() -> None:
    async def main() -> None:
        future: AsyncFuture[int] = AsyncFuture()
        waiters = [asyncio.ensure_future(future.result()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not future.done()
        assert future.exception() is None
        future.set_result(7)
        assert await asyncio.gather(*waiters) == [7, 7, 7]
        assert await future == 7
        assert await future.result(timeout=0) == 7

    asyncio.run(main())


def test_a_timed_out_result_leaves_the_future_pending_and_says_so() -> None:
    async def main() -> None:
        future: AsyncFuture[int] = AsyncFuture()
        with pytest.raises(TimeoutError, match="still running"):
            await future.result(timeout=0.001)
        assert not future.done()
        future.set_result(1)
        assert await future == 1

    asyncio.run(main())


def test_cancelling_who_waits_does_not_cancel_the_future() -> None:
    async def main() -> None:
        future: AsyncFuture[int] = AsyncFuture()
        waiter = asyncio.ensure_future(future.result())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])
        assert waiter.cancelled()
        assert not future.done()
        assert future._callbacks == []

    asyncio.run(main())


def test_cancel_asks_the_canceller_and_a_cancelled_future_raises() -> None:
    asked: list[AsyncFuture[int]] = []

    def canceller(future: AsyncFuture[int]) -> bool:
        asked.append(future)
        future.set_cancelled()
        return True

    async def main() -> None:
        future: AsyncFuture[int] = AsyncFuture(canceller)
        assert future.cancel()
        assert not future.cancel()
        assert asked == [future]
        assert future.cancelled()
        assert isinstance(future.exception(), asyncio.CancelledError)
        with pytest.raises(asyncio.CancelledError):
            await future

    asyncio.run(main())
    assert not AsyncFuture[int]().cancel()


def test_callbacks_are_called_once_and_a_failing_one_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    future: AsyncFuture[int] = AsyncFuture()
    called: list[str] = []

    def fail(_: AsyncFuture[int]) -> None:
        raise LookupError("callback")

    future.add_done_callback(fail)
    future.add_done_callback(lambda _: called.append("before"))
    future.set_result(1)
    future.set_result(2)
    future.add_done_callback(lambda _: called.append("after"))
    assert called == ["before", "after"]
    assert "callback" in caplog.text


def test_only_an_error_that_nobody_retrieved_is_logged_and_once(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what earlier tests forgot is not ours
    with caplog.at_level(logging.ERROR):
        retrieved: AsyncFuture[int] = AsyncFuture()
        retrieved.set_exception(ValueError("seen"))
        assert isinstance(retrieved.exception(), ValueError)
        del retrieved
        forgotten: AsyncFuture[int] = AsyncFuture()
        forgotten.set_exception(ValueError("unseen"))
        del forgotten
        gc.collect()
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info and record.exc_info[1]] == [
        ("unseen",)
    ]


def test_wait_returns_by_its_strategy() -> None:
    async def main() -> None:
        first, failing, last = futures = made(3)
        task = asyncio.ensure_future(wait(futures, return_when=WaitStrategy.FIRST_COMPLETED))
        await asyncio.sleep(0)
        first.set_result(1)
        assert await task == ({first}, {failing, last})

        task = asyncio.ensure_future(wait(futures, return_when=WaitStrategy.FIRST_EXCEPTION))
        await asyncio.sleep(0)
        assert not task.done()
        failing.set_exception(ValueError())
        assert await task == ({first, failing}, {last})
        assert await wait(futures, return_when=WaitStrategy.FIRST_EXCEPTION) == ({first, failing}, {last})

        task = asyncio.ensure_future(wait(futures))
        await asyncio.sleep(0)
        last.set_result(3)
        assert await task == (set(futures), set())
        assert await wait([]) == (set(), set())
        failing.exception()

    asyncio.run(main())


def test_wait_raises_at_its_timeout_only_for_all_completed() -> None:
    async def main() -> None:
        done, pending = futures = made(2)
        done.set_result(1)
        with pytest.raises(TimeoutError, match="1 of 2"):
            await wait(futures, timeout=0.001)
        for strategy in (WaitStrategy.FIRST_COMPLETED, WaitStrategy.FIRST_EXCEPTION):
            assert await wait(futures, timeout=0.001, return_when=strategy) == ({done}, {pending})
            assert await wait([pending], timeout=0.001, return_when=strategy) == (set(), {pending})
        assert pending._callbacks == []

    asyncio.run(main())


def test_as_completed_yields_each_future_once_in_the_order_of_completion() -> None:
    async def main() -> None:
        a, b, c = futures = made(3)
        b.set_result(1)
        asyncio.get_running_loop().call_soon(c.set_result, 2)
        asyncio.get_running_loop().call_later(0.001, a.set_result, 3)
        assert [future async for future in as_completed([*futures, b])] == [b, c, a]

    asyncio.run(main())


def test_as_completed_times_out_and_leaves_no_callback_behind() -> None:
    async def main() -> None:
        done, pending = futures = made(2)
        done.set_result(1)
        received = []
        with pytest.raises(TimeoutError):  # noqa: PT012
            async for future in as_completed(futures, timeout=0.001):
                received.append(future)  # noqa: PERF401
        assert received == [done]
        async for _ in as_completed(futures):
            break
        gc.collect()
        assert pending._callbacks == []

    asyncio.run(main())


def test_waiting_costs_the_same_per_future_for_many() -> None:
    async def seconds(count: int) -> float:
        futures = made(count)
        started = time.perf_counter()
        for future in futures:
            asyncio.get_running_loop().call_soon(future.set_result, 1)
        assert len([future async for future in as_completed(futures)]) == count
        await wait(futures)
        return (time.perf_counter() - started) / count

    async def main() -> None:
        few = min([await seconds(500) for _ in range(5)])
        many = min([await seconds(8000) for _ in range(3)])
        # Quadratic cost would make it 16 times; the benchmark holds the tight bar.
        assert many < 6 * few

    asyncio.run(main())
