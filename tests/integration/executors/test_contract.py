"""What every executor does, whether it runs functions here or on a farm."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import farm_targets as targets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzfarm import ExecutorShutdownError, Farm, FarmExecutor, RemoteError, RemoteTimeoutError, WaitStrategy
from fuzzfarm_worker.executors.async_executor import AsyncExecutor
from fuzzfarm_worker.executors.errors import OperationTimeoutError

AnyExecutor = AsyncExecutor | FarmExecutor
WAIT_S = 40.0


@dataclass(frozen=True)
class Kind:
    """One way to have an executor; `make` gives a new one, whose farm stays open until the context is left."""

    make: Callable[[], AbstractAsyncContextManager[AnyExecutor]]
    value_error: type[Exception]
    timeout: type[TimeoutError]


@pytest.fixture(params=["AsyncExecutor", "FarmExecutor"])
def kind(request: pytest.FixtureRequest, shared_farm: dict[str, Any]) -> Kind:
    @asynccontextmanager
    async def here() -> AsyncIterator[AnyExecutor]:
        yield AsyncExecutor(max_workers=10)

    @asynccontextmanager
    async def on_the_farm() -> AsyncIterator[AnyExecutor]:
        async with Farm.connect(**shared_farm) as farm:
            yield FarmExecutor(farm)

    if request.param == "AsyncExecutor":
        return Kind(here, ValueError, OperationTimeoutError)
    return Kind(on_the_farm, RemoteError, RemoteTimeoutError)


def run(kind: Kind, scenario: Callable[[AnyExecutor], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario that leaves no task behind, whatever it does with its executor."""

    async def main() -> None:
        before = asyncio.all_tasks()
        async with asyncio.timeout(WAIT_S):
            async with kind.make() as executor:
                await scenario(executor)
                await executor.shutdown(cancel_futures=True)
        assert asyncio.all_tasks() == before

    asyncio.run(main())


async def appeared(path: Path) -> None:
    while not path.exists():
        await asyncio.sleep(0.005)


def test_submit_gives_a_future_at_once_and_later_its_value(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            futures = [executor.submit(targets.echo, 7), executor.submit(targets.echo_async, value=7)]
            assert not any(future.done() for future in futures)
            assert futures[0].exception() is None
            assert [await futures[0].result(), await futures[1]] == [7, 7]
            assert futures[0].done()
            assert await futures[0].result(timeout=1) == 7
            assert await executor.submit(targets.Box.double, 4) == 8

    run(kind, scenario)


def test_an_error_is_raised_where_the_result_is_asked_for(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            future, other = executor.submit(targets.fail, "boom"), executor.submit(targets.echo, 1)
            with pytest.raises(kind.value_error, match="boom"):
                await future
            assert isinstance(future.exception(), kind.value_error)
            assert future.failed()
            assert await other == 1

    run(kind, scenario)


def test_retries_go_on_until_it_succeeds_or_they_are_used_up(kind: Kind, tmp_path: Path) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            good = executor.submit(targets.fail_before, str(tmp_path), "good", 3, retries=2, retry_delay=0.001)
            bad = executor.submit(targets.fail_before, str(tmp_path), "bad", 9, retries=2, retry_delay=0.001)
            assert await good == 3
            with pytest.raises(kind.value_error, match="try 3"):
                await bad
        assert len((tmp_path / "bad").read_text().splitlines()) == 3

    run(kind, scenario)


def test_a_semaphore_bounds_its_calls_and_is_free_at_their_end(kind: Kind, tmp_path: Path) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        semaphore = asyncio.Semaphore(2)
        async with executor:
            waiting = [
                executor.submit(targets.note_and_wait_for, str(tmp_path), name, "go", semaphore=semaphore)
                for name in "abcde"
            ]
            await appeared(tmp_path / "a")
            await appeared(tmp_path / "b")
            assert await executor.submit(targets.echo, "not held up") == "not held up"
            assert semaphore.locked()
            assert waiting[3].cancel()
            assert waiting[3].cancelled()
            assert not (tmp_path / "c").exists()
            (tmp_path / "go").touch()
            assert [await waiting[place] for place in (0, 1, 2, 4)] == ["a", "b", "c", "e"]
        assert not (tmp_path / "d").exists()
        assert not semaphore.locked()

    run(kind, scenario)


def test_shutdown_waits_for_calls_that_wait_for_their_semaphore(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        semaphore = asyncio.Semaphore(1)
        async with executor:
            futures = [executor.submit(targets.echo, n, semaphore=semaphore) for n in range(4)]
        assert [await future for future in futures] == [0, 1, 2, 3]

    run(kind, scenario)


def test_a_done_callback_hears_of_the_end(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            seen: list[Any] = []
            future = executor.submit(targets.echo, 5)
            future.add_done_callback(seen.append)
            assert await future == 5
            assert seen == [future]

    run(kind, scenario)


def test_a_result_that_is_late_leaves_the_operation_running(kind: Kind, tmp_path: Path) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            future = executor.submit(targets.note_and_wait_for, str(tmp_path), "it", "go")
            with pytest.raises(TimeoutError, match="still running"):
                await future.result(timeout=0.01)
            (tmp_path / "go").touch()
            assert await future.result(timeout=WAIT_S) == "it"

    run(kind, scenario)


def test_a_future_can_be_cancelled_while_its_call_runs(kind: Kind, tmp_path: Path) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        future = executor.submit(targets.note_and_wait_for, str(tmp_path), "it", "never")
        await appeared(tmp_path / "it")
        assert future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        assert not future.cancel()
        assert await executor.submit(targets.echo, "goes on") == "goes on"

    run(kind, scenario)


def test_map_keeps_the_order_and_zips(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            assert await executor.map(targets.echo_async, range(3_000)) == list(range(3_000))
            assert await executor.map(targets.pause, [0.02, 0.0, 0.01], "abc") == ["a", "b", "c"]
            assert await executor.map(targets.echo, []) == []
            assert await executor.map(targets.echo, iter("xy")) == ["x", "y"]

    run(kind, scenario)


def test_the_first_error_of_map_ends_it_however_much_input_is_left(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            with pytest.raises(kind.value_error, match="boom"):
                await executor.map(targets.fail, itertools.repeat("boom"))
            assert await executor.map(targets.echo, [5]) == [5]

            def broken() -> Iterator[int]:
                yield 1
                raise LookupError("input")

            with pytest.raises(LookupError, match="input"):
                await executor.map(targets.echo, broken())

    run(kind, scenario)


def test_a_timeout_of_map_is_for_each_item_from_its_start(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            with pytest.raises(kind.timeout):
                await executor.map(targets.pause, [0.0, 60.0], timeout=0.05)
            with pytest.raises(TimeoutError):
                _ = [value async for value in executor.map_iter(targets.pause, [60.0], timeout=0.05)]

    run(kind, scenario)


def test_cancelling_map_cancels_its_calls(kind: Kind, tmp_path: Path) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            calls = executor.map(targets.note_and_wait_for, [str(tmp_path)] * 3, "abc", ["never"] * 3)
            mapping = asyncio.create_task(calls)
            await appeared(tmp_path / "c")
            mapping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await mapping
            assert await executor.map(targets.echo, "ab") == ["a", "b"]

    run(kind, scenario)


def test_map_iter_reads_no_further_ahead_than_its_window(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        read = 0

        def numbers() -> Iterator[int]:
            nonlocal read
            for number in itertools.count():
                read = number + 1
                yield number

        async with executor:
            handed_out = 0
            async for number in executor.map_iter(targets.echo_async, numbers(), prefetch=50):
                assert number == handed_out
                assert read - handed_out <= 50
                handed_out += 1
                if handed_out == 500:
                    break
        assert handed_out == 500

    run(kind, scenario)


def test_map_iter_works_with_the_smallest_window(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            assert [n async for n in executor.map_iter(targets.echo, range(4), prefetch=1)] == [0, 1, 2, 3]
            assert [n async for n in executor.map_iter(targets.echo, [])] == []
            assert [n async for n in executor.map_iter(targets.echo, range(8), prefetch=8)] == list(range(8))
            with pytest.raises(ValueError, match="prefetch must be at least 1"):
                executor.map_iter(targets.echo, [], prefetch=0)

    run(kind, scenario)


def test_map_iter_raises_an_error_at_its_place_and_ends(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            results = executor.map_iter(targets.refuse_odd, [0, 2, 3, 4])
            assert [await anext(results), await anext(results)] == [0, 2]
            with pytest.raises(kind.value_error, match="3 is odd"):
                await anext(results)
            with pytest.raises(StopAsyncIteration):
                await anext(results)

            def broken() -> Iterator[int]:
                yield 1
                raise LookupError("input")

            with pytest.raises(LookupError, match="input"):
                _ = [n async for n in executor.map_iter(targets.echo, broken())]

    run(kind, scenario)


@pytest.mark.parametrize("source", ["operation", "input"])
def test_an_error_that_looks_like_the_end_of_map_iter_is_an_error(kind: Kind, source: str) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        if source == "input":
            raise StopAsyncIteration("not the end")
        yield 2

    async def scenario(executor: AnyExecutor) -> None:
        function = targets.echo if source == "input" else targets.raise_stop_async_iteration
        with pytest.raises((RuntimeError, RemoteError)) as caught:
            _ = [value async for value in executor.map_iter(function, numbers())]
        assert "not the end" in str(caught.value.__cause__ or caught.value)

    run(kind, scenario)


def test_leaving_map_iter_early_cancels_what_runs(kind: Kind, tmp_path: Path) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        results: Any = executor.map_iter(targets.note_and_wait_for, [str(tmp_path)] * 2, "ab", ["go", "never"])
        (tmp_path / "go").touch()
        assert await anext(results) == "a"
        await appeared(tmp_path / "b")
        await results.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        await executor.shutdown()

    run(kind, scenario)


def test_as_completed_and_wait_take_its_futures(kind: Kind, tmp_path: Path) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        async with executor:
            slow = executor.submit(targets.note_and_wait_for, str(tmp_path), "slow", "go")
            await appeared(tmp_path / "slow")
            fast, bad = executor.submit(targets.echo, 1), executor.submit(targets.fail, "boom")
            assert (await executor.wait([slow, fast], None, WaitStrategy.FIRST_COMPLETED))[0] == {fast}
            done, pending = await executor.wait([slow, bad], None, WaitStrategy.FIRST_EXCEPTION)
            assert (done, pending) == ({bad}, {slow})
            with pytest.raises(TimeoutError, match="1 of 2"):
                await executor.wait([slow, fast], timeout=0.01)
            order = []
            async for future in executor.as_completed([slow, fast, bad], timeout=WAIT_S):
                order.append(future)
                (tmp_path / "go").touch()
            assert order[-1] is slow
            assert isinstance(bad.exception(), kind.value_error)

    run(kind, scenario)


def test_after_shutdown_nothing_is_accepted(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        future = executor.submit(targets.echo, 2)
        begun = executor.map_iter(targets.echo, itertools.count())
        assert await anext(begun) == 0
        not_begun = executor.map_iter(targets.echo, [2])
        await executor.shutdown()
        assert await future == 2
        with pytest.raises(ExecutorShutdownError):
            executor.submit(targets.echo, 2)
        with pytest.raises(ExecutorShutdownError):
            await executor.map(targets.echo, [2])
        with pytest.raises(ExecutorShutdownError):
            executor.map_iter(targets.echo, [2])
        with pytest.raises(ExecutorShutdownError):  # noqa: PT012 - some results may be there already
            while True:
                await anext(begun)
        with pytest.raises(ExecutorShutdownError):
            await anext(not_begun)
        await executor.shutdown()

    run(kind, scenario)


@pytest.mark.parametrize("last", ["cancelled", "done"])
def test_shutdown_waits_for_nothing_that_was_cancelled(kind: Kind, last: str, tmp_path: Path) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        futures = [executor.submit(targets.note_and_wait_for, str(tmp_path), name, f"go {name}") for name in "abc"]
        for name in "abc":
            await appeared(tmp_path / name)
        assert futures[0].cancel()
        leaving = asyncio.create_task(executor.shutdown())
        await asyncio.sleep(0)
        assert futures[2].cancel()
        await asyncio.sleep(0)
        assert not futures[1].done()
        if last == "done":
            (tmp_path / "go b").touch()
        else:
            assert futures[1].cancel()
        await leaving
        assert [future.cancelled() for future in futures] == [True, last == "cancelled", True]

    run(kind, scenario)


def test_shutdown_without_waiting_lets_everything_submitted_finish(kind: Kind) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        futures = [executor.submit(targets.echo, number) for number in range(20)]
        await executor.shutdown(wait=False)
        assert not any(future.done() for future in futures)
        assert [await future for future in futures] == list(range(20))
        await executor.shutdown()

    run(kind, scenario)


def test_leaving_by_an_exception_cancels_what_has_not_started(kind: Kind, tmp_path: Path) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        futures = []
        with pytest.raises(LookupError):  # noqa: PT012
            async with executor:
                futures = [executor.submit(targets.note, str(tmp_path), str(n)) for n in range(10)]
                raise LookupError
        assert all(future.cancelled() for future in futures)
        assert list(tmp_path.iterdir()) == []

    run(kind, scenario)


@pytest.mark.parametrize("left", ["not sent", "running"])
def test_the_loop_ends_cleanly_with_an_executor_left_open(kind: Kind, left: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with kind.make() as executor:
            futures.extend(executor.submit(targets.note_and_wait_for, str(tmp_path), str(n), "never") for n in range(5))
            if left == "running":
                await appeared(tmp_path / "4")

    futures: list[Any] = []
    asyncio.run(asyncio.wait_for(main(), WAIT_S))
    assert all(future.cancelled() for future in futures)


@given(
    plan=st.lists(st.sampled_from(["value", "error", "retry", "cancel", "gate"]), max_size=30),
    ending=st.sampled_from(["wait", "cancel", "leave"]),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mix_of_calls_and_endings_settles_every_future_once(kind: Kind, plan: list[str], ending: str) -> None:
    async def scenario(executor: AnyExecutor) -> None:
        settled: Counter[Any] = Counter()
        semaphore = asyncio.Semaphore(2)
        futures = []
        for number, what in enumerate(plan):
            function: Any = targets.fail if what in {"error", "retry"} else targets.echo
            future = executor.submit(
                function,
                str(number),
                retries=what == "retry",
                retry_delay=0.001,
                semaphore=semaphore if what == "gate" else None,
            )
            future.add_done_callback(lambda done: settled.update([done]))
            futures.append(future)
            if what == "cancel":
                assert future.cancel()
        if ending == "leave":
            await asyncio.sleep(0)
        await executor.shutdown(wait=True, cancel_futures=ending != "wait")
        assert settled == Counter(futures)
        assert not semaphore.locked()
        for number, (what, future) in enumerate(zip(plan, futures, strict=True)):
            if what == "cancel" or (ending != "wait" and future.cancelled()):
                assert future.cancelled()
            elif what in {"error", "retry"}:
                assert isinstance(future.exception(), kind.value_error)
            else:
                assert await future == str(number)

    run(kind, scenario)
