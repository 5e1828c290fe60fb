"""AsyncFuzzExecutor, member by member."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from event_loops import LOOPS
from hypothesis import strategies as st

from fuzzfarm_worker.executors.errors import OperationTimeoutError
from fuzzfarm_worker.executors.fuzz_executor import AsyncFuzzExecutor

if TYPE_CHECKING:
    pass


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


async def odd_only(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(number)
    return number


async def forever() -> None:
    await asyncio.Event().wait()


def test_its_defaults_are_those_of_the_contract() -> None:
    signature = inspect.signature(AsyncFuzzExecutor)
    assert {name: parameter.default for name, parameter in signature.parameters.items()} == {
        "max_concurrency": 5,
        "timeout": 30.0,
        "retry_count": 1,
        "retry_delay": 1.0,
    }
    assert inspect.signature(AsyncFuzzExecutor.shutdown).parameters["timeout"].default == 5.0


def test_execute_runs_once_and_returns_the_value_or_raises_the_error(run: Any) -> None:
    async def main() -> None:
        tries = itertools.count(1)

        async def fail(**kwargs: Any) -> None:
            raise ValueError(next(tries), kwargs)

        async with AsyncFuzzExecutor(retry_count=5) as executor:
            assert await executor.execute(double, 4) == 8
            assert await executor.execute(functools.partial(pow, 2), 3) == 8
            assert await executor.execute(lambda: double(4)) == 8
            with pytest.raises(ValueError, match="key") as caught:
                await executor.execute(fail, key=1)
            assert caught.value.args == (1, {"key": 1})
            with pytest.raises(OperationTimeoutError):
                await executor.execute(forever, timeout=0.01)

    run(main())


def test_execute_with_retry_backs_off_exponentially_and_jitter_only_lengthens(run: Any) -> None:
    async def main() -> None:
        times: list[float] = []

        async def fail() -> None:
            times.append(time.monotonic())
            raise ValueError(len(times))

        async with AsyncFuzzExecutor(retry_count=2, retry_delay=0.02) as executor:
            with pytest.raises(ValueError, match="3") as caught:
                await executor.execute_with_retry(fail)
            assert len(caught.value.__notes__) == 2
            first, second = (after - before for before, after in itertools.pairwise(times))
            assert first >= 0.02
            assert second >= 0.04
            with pytest.raises(ValueError, match="4"):
                await executor.execute_with_retry(fail, retry_count=0)

    run(main())


def test_a_cancelled_operation_is_not_retried(run: Any) -> None:
    async def main() -> None:
        tries = itertools.count(1)

        async def cancel() -> None:
            next(tries)
            raise asyncio.CancelledError

        async with AsyncFuzzExecutor() as executor:
            with pytest.raises(asyncio.CancelledError):
                await executor.execute_with_retry(cancel, retry_count=3, retry_delay=0)
        assert next(tries) == 2

    run(main())


def test_a_batch_collects_results_and_errors_in_input_order(run: Any) -> None:
    async def main() -> None:
        async with AsyncFuzzExecutor(max_concurrency=3) as executor:
            operations = [(odd_only, [number], {}) for number in range(10)] + [(double, (), {"number": 50})]
            outcomes = await executor.execute_batch(operations)
            assert outcomes["results"] == [1, 3, 5, 7, 9, 100]
            assert [error.args for error in outcomes["errors"]] == [(0,), (2,), (4,), (6,), (8,)]
            lazy = await executor.execute_batch(iter(operations))
            assert lazy["results"] == outcomes["results"]
            assert len(lazy["errors"]) == 5
            assert await executor.execute_batch([]) == {"results": [], "errors": []}

    run(main())


def test_a_batch_collects_only_what_is_asked_for(run: Any) -> None:
    async def main() -> None:
        async with AsyncFuzzExecutor() as executor:
            operations = [(odd_only, [1], {}), (odd_only, [2], {}), (abs, [-3], {}), (abs, ["x"], {})]
            results = await executor.execute_batch(operations, collect_errors=False)
            assert results == {"results": [1, 3], "errors": []}
            errors = await executor.execute_batch(operations, collect_results=False)
            assert errors["results"] == []
            assert [type(error) for error in errors["errors"]] == [ValueError, TypeError]

    run(main())


def test_a_keyed_batch_keeps_its_keys(run: Any) -> None:
    async def main() -> None:
        async with AsyncFuzzExecutor() as executor:
            outcomes = await executor.execute_keyed(
                {"a": (double, [1], {}), ("b", 2): (odd_only, [2], {}), "c": (len, ["four"], {})}
            )
            assert outcomes["results"] == {"a": 2, "c": 4}
            assert list(outcomes["errors"]) == [("b", 2)]

    run(main())


def test_two_batches_and_a_single_operation_share_the_slots(run: Any) -> None:
    async def main() -> None:
        inside = most = 0

        async def operation() -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.002)
            inside -= 1

        async with AsyncFuzzExecutor(max_concurrency=4) as executor:
            batch = [(operation, [], {})] * 20
            await asyncio.gather(
                executor.execute_batch(batch), executor.execute_batch(batch), executor.execute(operation)
            )
        assert most == 4

    run(main())


def test_cancelling_a_batch_cancels_all_of_it_and_leaks_no_task(run: Any) -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        executor = AsyncFuzzExecutor(max_concurrency=3)
        started = asyncio.Event()
        cancelled = 0

        async def operation() -> None:
            nonlocal cancelled
            started.set()
            try:
                await forever()
            except asyncio.CancelledError:
                cancelled += 1
                raise

        batch = asyncio.create_task(executor.execute_batch([(operation, [], {})] * 10))
        await started.wait()
        await asyncio.sleep(0.005)
        batch.cancel()
        await asyncio.wait([batch])
        assert batch.cancelled()
        assert cancelled == 3
        assert asyncio.all_tasks() == before
        await executor.shutdown()

    run(main())


def test_after_shutdown_everything_is_refused(run: Any) -> None:
    async def main() -> None:
        executor = AsyncFuzzExecutor()
        await executor.shutdown()
        await executor.shutdown()
        for refused in (
            executor.execute(double, 1),
            executor.execute_with_retry(double, 1),
            executor.execute_batch([]),
            executor.execute_keyed({}),
            executor.run_hypothesis_strategy(st.integers()),
        ):
            with pytest.raises(RuntimeError, match="shut down"):
                await refused

    run(main())


def test_shutdown_waits_for_what_runs_and_cancels_the_rest_at_its_timeout(run: Any) -> None:
    async def main() -> None:
        executor = AsyncFuzzExecutor()
        short = asyncio.create_task(executor.execute(asyncio.sleep, 0.01, "slept"))
        await asyncio.sleep(0)
        await executor.shutdown()
        assert await short == "slept"

        executor, release = AsyncFuzzExecutor(timeout=None), threading.Event()
        hanging = [asyncio.create_task(executor.execute(fn)) for fn in (forever, release.wait)]
        await asyncio.sleep(0)
        started = time.monotonic()
        await executor.shutdown(timeout=0.05)
        assert time.monotonic() - started < 2
        await asyncio.wait(hanging)
        assert all(task.cancelled() for task in hanging)
        release.set()

    run(main())


def test_the_interpreter_exits_although_a_sync_operation_hangs() -> None:
    code = """
import asyncio, time
from fuzzfarm_worker.executors.fuzz_executor import AsyncFuzzExecutor
async def main():
    async with AsyncFuzzExecutor(timeout=0.05) as executor:
        try:
            await executor.execute(time.sleep, 1000)
        except TimeoutError as error:
            print(error)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0
    assert done.stdout == "the operation did not end within 0.05 s\n"
    assert done.stderr == ""


def test_one_executor_serves_one_event_loop_after_another() -> None:
    executor = AsyncFuzzExecutor()
    for new_loop in (*LOOPS.values(), *LOOPS.values()):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            batch = executor.execute_batch([(double, [1], {}), (abs, [-2], {})])
            assert runner.run(batch)["results"] == [2, 2]
    asyncio.run(executor.shutdown())


def test_hypothesis_strategies_are_drawn_by_many_tasks_and_the_loop_goes_on(run: Any) -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        async with AsyncFuzzExecutor(max_concurrency=2) as executor:
            ticker = asyncio.create_task(tick())
            strategy = st.integers(0, 1000)
            drawn = await asyncio.gather(*(executor.run_hypothesis_strategy(strategy) for _ in range(150)))
            fresh = await asyncio.gather(*(executor.run_hypothesis_strategy(st.text()) for _ in range(3)))
            ticker.cancel()
        assert all(isinstance(number, int) and 0 <= number <= 1000 for number in drawn)
        assert len(set(drawn)) > 20
        assert all(isinstance(text, str) for text in fresh)
        assert ticks > 2

    run(main())


def test_an_error_of_a_strategy_is_raised(run: Any) -> None:
    def fail(_: int) -> int:
        raise LookupError("strategy")

    async def main() -> None:
        async with AsyncFuzzExecutor() as executor:
            with pytest.raises(LookupError, match="strategy"):
                await executor.run_hypothesis_strategy(st.integers().map(fail))

    run(main())
