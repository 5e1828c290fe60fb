"""Whoever waits for a future runs queued calls as far as they go without suspending, and nobody can tell."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import Counter
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzfarm_worker.executors.async_executor import AsyncExecutor

name: ContextVar[str] = ContextVar("name", default="nobody")


async def at_once(value: Any) -> Any:
    return value


class Callable:
    """An object with an async `__call__`."""

    def __init__(self, function: Any) -> None:
        self._function = function

    async def __call__(self, *args: Any) -> Any:
        return await self._function(*args)


async def later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def warm(executor: AsyncExecutor) -> None:
    """Have a spare task parked and a turn begun, as in the middle of a program."""
    for _ in range(3):
        await executor.submit(later, 0)
        await asyncio.sleep(0)


def passes_of_the_loop() -> Counter[str]:
    passes: Counter[str] = Counter()

    def count() -> None:
        passes["loop"] += 1
        asyncio.get_running_loop().call_soon(count)

    count()
    return passes


def test_an_operation_that_never_suspends_costs_no_pass_of_the_loop(run: Any) -> None:
    async def main() -> None:
        async with AsyncExecutor(max_workers=2) as executor:
            await warm(executor)
            passes = passes_of_the_loop()
            for number in range(1_000):
                assert await executor.submit(at_once, number) == number
            # One pass ends each turn of the kernel, which is many operations long.
            assert passes["loop"] < 500

    run(main())


def test_a_loop_of_submits_leaves_turns_to_other_tasks(run: Any) -> None:
    async def main() -> None:
        async with AsyncExecutor(max_workers=2) as executor:
            await warm(executor)
            passes = passes_of_the_loop()
            while passes["loop"] < 5:
                await executor.submit(at_once, 1)

    run(main())


def test_calls_queued_before_it_run_before_it(run: Any) -> None:
    async def main() -> None:
        order: list[int] = []

        async def note(number: int) -> None:
            order.append(number)

        async with AsyncExecutor(max_workers=2) as executor:
            await warm(executor)
            futures = [executor.submit(note, number) for number in range(10)]
            await futures[-1]
            assert order == list(range(10))

    run(main())


def test_an_operation_has_a_task_of_its_own_from_its_first_step_to_its_last(run: Any) -> None:
    async def main() -> None:
        async def tasks() -> tuple[Any, Any]:
            first = asyncio.current_task()
            await asyncio.sleep(0)
            return first, asyncio.current_task()

        async with AsyncExecutor(max_workers=2) as executor:
            await warm(executor)
            for _ in range(3):
                first, last = await executor.submit(tasks)
                assert first is last
                assert first not in {None, asyncio.current_task()}

    run(main())


def test_a_timeout_within_an_operation_ends_the_operation_and_not_who_waits(run: Any) -> None:
    async def main() -> None:
        async def give_up() -> str:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                return "gave up"
            return "waited"

        async with AsyncExecutor(max_workers=2) as executor:
            await warm(executor)
            assert await executor.submit(give_up) == "gave up"

    run(main())


@pytest.mark.parametrize("suspends", [False, True])
def test_context_variables_stay_in_the_operation(run: Any, suspends: bool) -> None:
    async def main() -> None:
        async def rename(new: str) -> str:
            if suspends:
                await asyncio.sleep(0)
            old = name.get()
            name.set(new)
            return old

        name.set("caller")
        async with AsyncExecutor(max_workers=2) as executor:
            await warm(executor)
            for new in ("one", "two", "three"):
                assert await executor.submit(rename, new) == "caller"
                await asyncio.sleep(0)
            assert name.get() == "caller"

    run(main())


def test_an_operation_that_cancels_its_own_task_harms_no_other(run: Any) -> None:
    async def main() -> None:
        async def cancel_itself(value: int) -> int:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return value

        async with AsyncExecutor(max_workers=2) as executor:
            await warm(executor)
            for number in range(5):
                await executor.submit(cancel_itself, number).result()
                assert await executor.submit(later, number) == number
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()

    run(main())


@pytest.mark.parametrize("error", [ValueError("planned"), SystemExit(3), asyncio.CancelledError()])
def test_an_error_is_the_operations_and_shows_its_frames_only(run: Any, error: BaseException) -> None:
    async def fail() -> None:
        raise error

    async def main() -> None:
        async with AsyncExecutor(max_workers=2) as executor:
            await warm(executor)
            future = executor.submit(fail)
            with pytest.raises(type(error)):
                await future
            raised = future.exception()
            assert raised is error or isinstance(raised, asyncio.CancelledError)
            if raised is error:
                files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
                assert not [file for file in files if "fuzzfarm_worker" in file]

    run(main())


def test_an_error_that_the_waiter_handles_is_no_context_of_an_operations_error(run: Any) -> None:
    async def fail() -> None:
        raise ValueError("planned")

    async def main() -> None:
        async with AsyncExecutor(max_workers=2) as executor:
            await warm(executor)
            failing, following = executor.submit(fail), executor.submit(at_once, 1)
            try:
                raise KeyError("of the waiter")
            except KeyError:
                await following
            error = failing.exception()
            assert error is not None
            assert error.__context__ is None

    run(main())


def test_a_cancellation_right_after_the_first_step_reaches_the_operation(run: Any) -> None:
    async def main() -> None:
        async def wait_for_ever() -> None:
            asyncio.get_running_loop().call_soon(future.cancel)  # before the spare task has taken over
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cleaned up")

        ended: list[str] = []
        async with AsyncExecutor(max_workers=2) as executor:
            await warm(executor)
            future = executor.submit(wait_for_ever)
            with pytest.raises(asyncio.CancelledError):
                await future
            assert ended == ["cleaned up"]
            assert await executor.submit(later, 1) == 1

    run(main())


def test_waiting_for_many_queued_calls_leaves_turns_to_other_tasks(run: Any) -> None:
    async def main() -> None:
        async def busy() -> None:
            until = time.monotonic() + 0.001
            while time.monotonic() < until:
                pass

        async with AsyncExecutor(max_workers=2) as executor:
            await warm(executor)
            passes = passes_of_the_loop()
            futures = [executor.submit(busy) for _ in range(100)]
            await futures[-1]
            assert passes["loop"] >= 5

    run(main())


def test_an_operation_may_wait_for_another_one(run: Any) -> None:
    async def main() -> None:
        async with AsyncExecutor(max_workers=3) as executor:
            await warm(executor)

            async def outer(depth: int) -> int:
                return depth if depth == 2 else await executor.submit(outer, depth + 1)

            assert await executor.submit(outer, 0) == 2

    run(main())


def test_what_hangs_in_the_spare_task_is_cancelled_with_its_loop() -> None:
    ended: list[str] = []

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    async def main() -> None:
        executor = AsyncExecutor(max_workers=2)
        await warm(executor)
        waiter = asyncio.ensure_future(executor.submit(wait_for_ever).result())
        await asyncio.sleep(0)
        assert not waiter.done()

    asyncio.run(main())
    assert ended == ["cleaned up"]


@given(
    suspends=st.lists(st.integers(0, 2), max_size=30),
    forms=st.lists(st.integers(0, 3), min_size=30, max_size=30),
    workers=st.integers(1, 4),
    waits=st.sets(st.integers(0, 29)),
    cancels=st.sets(st.integers(0, 29)),
    retried=st.sets(st.integers(0, 29)),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_mix_of_submits_and_waits_gives_each_future_one_outcome(  # noqa: C901
    suspends: list[int], forms: list[int], workers: int, waits: set[int], cancels: set[int], retried: set[int]
) -> None:
    tries: Counter[int] = Counter()
    running = 0

    async def operation(index: int) -> int:
        nonlocal running
        running += 1
        assert running <= workers
        try:
            tries[index] += 1
            for _ in range(suspends[index]):
                await asyncio.sleep(0)
            if index in retried and tries[index] == 1:
                raise ValueError("once")
            return index
        finally:
            running -= 1

    def returns_it(index: int) -> Any:
        return operation(index)

    functions = [operation, partial(operation), returns_it, Callable(operation)]

    async def main() -> None:
        before = asyncio.all_tasks()
        settled: Counter[Any] = Counter()
        async with AsyncExecutor(workers) as executor:
            await warm(executor)
            futures = []
            for index in range(len(suspends)):
                future = executor.submit(functions[forms[index]], index, retries=1, retry_delay=0.0)
                future.add_done_callback(lambda future: settled.update([future]))
                futures.append(future)
                if index in cancels:
                    future.cancel()
                elif index in waits:
                    assert await future == index
        assert settled == Counter(futures)
        for index, future in enumerate(futures):
            if not future.cancelled():
                assert await future == index
                assert tries[index] == (2 if index in retried else 1)
        assert executor._kernel.free_slots == workers
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before

    asyncio.run(main())
