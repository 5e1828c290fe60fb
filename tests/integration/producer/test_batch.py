"""What can be asked of a batch: status, stream, wait, results, cancel."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from books import until
from redis import Redis

from fuzzfarm import (
    BatchNotFoundError,
    BatchState,
    CallOperation,
    ErrorKind,
    Farm,
    FuzzOperation,
    SubprocessJob,
)

WAIT_S = 30.0


def wait_calls(folder: Path, count: int) -> list[CallOperation]:
    """Operations that leave a file when they start and end when there is a file `go`."""
    return [
        CallOperation(key=f"k{n}", target="farm_targets:note_and_wait_for", args=[str(folder), f"k{n}", "go"])
        for n in range(count)
    ]


def test_a_wait_that_times_out_leaves_the_batch_running(shared_farm: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            batch = await farm.submit(wait_calls(tmp_path, 2))
            await until((tmp_path / "k1").exists)
            with pytest.raises(TimeoutError, match=r"not done after 0\.1 s and goes on running \(0 of 2 operations\)"):
                await batch.wait(0.1)
            assert (await batch.status()).state is BatchState.RUNNING
            (tmp_path / "go").touch()
            assert (await batch.wait(WAIT_S)).results == {"k0": "k0", "k1": "k1"}

    asyncio.run(scenario())


def test_results_are_those_recorded_so_far(shared_farm: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            quick = [CallOperation(key=f"q{n}", target="farm_targets:echo", args=[n]) for n in range(5)]
            fails = CallOperation(key="f", target="farm_targets:fail", args=["no"])
            batch = await farm.submit([*quick, fails, *wait_calls(tmp_path, 1)])
            async with aclosing(batch.stream()) as stream:
                assert {(await anext(stream)).key for _ in range(6)} == {"q0", "q1", "q2", "q3", "q4", "f"}
            aggregate = await batch.results()
            assert aggregate.results == {f"q{n}": n for n in range(5)}
            assert set(aggregate.errors) == {"f"}
            assert (aggregate.status.pending, aggregate.status.done) == (1, False)
            (tmp_path / "go").touch()
            await batch.wait(WAIT_S)
            assert len((await batch.results()).results) == 6

    asyncio.run(scenario())


def test_a_batch_that_was_never_submitted_is_not_found_by_any_way(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            batch = farm.batch("nowhere")
            for ask in (batch.status, batch.wait, batch.results, batch.cancel, lambda: anext(batch.stream())):
                with pytest.raises(BatchNotFoundError, match="no batch 'nowhere' on this farm") as caught:
                    await ask()
                assert caught.value.key == "nowhere"

    asyncio.run(scenario())


def test_a_batch_that_expires_is_not_found_and_leaves_the_list(farm_settings: Any, server_url: str) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            batch = await farm.submit(CallOperation.many("farm_targets:echo", range(3)), "old")
            await farm.submit([], "new")
            with Redis.from_url(server_url) as client:
                names = client.keys(f"{farm_settings['namespace']}:b:old*")
                assert isinstance(names, list)
                assert all(client.ttl(name) > 0 for name in names)
                client.delete(*names)
            with pytest.raises(BatchNotFoundError):
                await batch.status()
            assert [status.key for status in await farm.batches()] == ["new"]

    asyncio.run(scenario())


def test_everything_of_a_batch_expires(start_worker: Any, farm_settings: Any, server_url: str) -> None:
    start_worker(result_ttl_s=100)

    async def scenario() -> None:
        async with Farm.connect(**farm_settings, result_ttl_s=100) as farm:
            calls = CallOperation.many("farm_targets:echo", range(100))
            fuzz = FuzzOperation(key="fuzz", target="farm_targets:fuzz_small", examples=10)
            await (await farm.submit([calls, fuzz], "done")).wait(WAIT_S)
            with Redis.from_url(server_url) as client:
                names = client.keys(f"{farm_settings['namespace']}*")
                assert isinstance(names, list)
                for_ever = [name for name in names if client.ttl(name) < 0]
                assert names
                assert for_ever == []

    asyncio.run(scenario())


def test_a_cancel_with_no_worker_alive_records_everything_at_once(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            fuzz = FuzzOperation(key="fuzz", target="farm_targets:fuzz_small", examples=10)
            batch = await farm.submit([CallOperation.many("farm_targets:echo", range(1_000)), fuzz], "waiting")
            async with asyncio.timeout(5.0):
                assert await batch.cancel() == 1_001
            aggregate = await batch.wait(1.0)
            assert (aggregate.status.state, aggregate.status.done) == (BatchState.CANCELLED, True)
            assert set(aggregate.errors) == {*map(str, range(1_000)), "fuzz"}
            assert {error.kind for error in aggregate.errors.values()} == {ErrorKind.CANCELLED}

    asyncio.run(scenario())


def test_cancelling_twice_or_a_done_batch_changes_nothing(shared_farm: Any, farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            batch = await farm.submit(CallOperation.many("farm_targets:echo", range(10)))
            assert [await batch.cancel(), await batch.cancel()] == [10, 10]
        async with Farm.connect(**shared_farm) as farm:
            batch = await farm.submit(CallOperation.many("farm_targets:echo", range(10)))
            before = (await batch.wait(WAIT_S)).status
            assert await batch.cancel() == 0
            assert await batch.status() == before
            assert before.state is BatchState.DONE

    asyncio.run(scenario())


def test_a_cancel_stops_what_runs_and_what_waits_and_kills_running_programs(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    start_worker(max_concurrency=4)
    script = "echo $$ > $0.new; mv $0.new $0; exec sleep 600"

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            jobs = [
                SubprocessJob(key=f"j{n}", command=["sh", "-c", script, str(tmp_path / f"j{n}")], timeout_s=None)
                for n in range(2)
            ]
            done = CallOperation(key="done", target="farm_targets:echo", args=[1])
            batch = await farm.submit([done, *jobs, *wait_calls(tmp_path, 10)])
            await until(lambda: all((tmp_path / name).exists() for name in ("j0", "j1", "k0", "k1")))
            pids = [int((tmp_path / name).read_text()) for name in ("j0", "j1")]
            async with aclosing(batch.stream()) as stream:
                assert (await anext(stream)).key == "done"
            assert await batch.cancel() == 12
            await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
            aggregate = await batch.wait(WAIT_S)
            assert aggregate.results == {"done": 1}
            assert {error.kind for error in aggregate.errors.values()} == {ErrorKind.CANCELLED}
            assert aggregate.status.state is BatchState.CANCELLED
            assert not (tmp_path / "k5").exists()
            after = await (await farm.submit(CallOperation.many("farm_targets:echo", "a"))).wait(WAIT_S)
            assert after.results == {"0": "a"}

    asyncio.run(scenario())


def test_a_cancel_stops_a_fuzz_operation(start_worker: Any, farm_settings: Any) -> None:
    start_worker()

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            fuzz = FuzzOperation(key="fuzz", target="farm_targets:fuzz_small", examples=10**9)
            batch = await farm.submit([fuzz])
            await until_examples(batch)
            assert await batch.cancel() == 1
            aggregate = await batch.wait(WAIT_S)
            assert aggregate.errors["fuzz"].kind is ErrorKind.CANCELLED

    asyncio.run(scenario())


async def until_examples(batch: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await batch.status()).examples_done == 0:
            await asyncio.sleep(0.02)


def test_a_stream_goes_on_behind_its_cursor_in_another_connection(shared_farm: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            batch = await farm.submit(CallOperation.many("farm_targets:echo", range(500)))
            await batch.wait(WAIT_S)
            whole = [outcome.key async for outcome in batch.stream()]
        seen: list[str] = []
        cursor = None
        for step in (1, 99, 0, 200, 200):
            async with Farm.connect(**shared_farm) as farm:
                stream = farm.batch(batch.key).stream(cursor)
                seen += [(await anext(stream)).key for _ in range(step)]
                cursor = stream.cursor
                await stream.aclose()
        assert seen == whole
        async with Farm.connect(**shared_farm) as farm:
            assert [outcome async for outcome in farm.batch(batch.key).stream(cursor)] == []

    asyncio.run(scenario())


@pytest.mark.parametrize("progress", [False, True])
def test_a_stream_that_was_waited_for_in_vain_goes_on_where_it_was(
    shared_farm: Any, tmp_path: Path, progress: Any
) -> None:
    async def scenario() -> list[str]:
        async with Farm.connect(**shared_farm) as farm, asyncio.timeout(WAIT_S):
            quick = CallOperation(key="quick", target="farm_targets:echo", args=[1])
            batch = await farm.submit([quick, *wait_calls(tmp_path, 1)])
            async with aclosing(batch.stream(progress=progress)) as stream:
                keys = [(await anext(stream)).key]
                for _ in range(2):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await anext(stream)
                (tmp_path / "go").touch()
                return keys + [event.key async for event in stream]

    assert asyncio.run(scenario()) == ["quick", "k0"]


def test_a_stream_survives_connections_that_are_cut(shared_farm: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            batch = await farm.submit([CallOperation.many("farm_targets:echo", range(50)), *wait_calls(tmp_path, 1)])
            stream = batch.stream()
            seen = [(await anext(stream)).key for _ in range(50)]
            following = asyncio.ensure_future(anext(stream))
            client = farm._server.client
            await until_blocked(client)
            with Redis.from_url(shared_farm["url"]) as admin:
                admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            (tmp_path / "go").touch()
            seen.append((await asyncio.wait_for(following, WAIT_S)).key)
            assert sorted(seen) == sorted([*map(str, range(50)), "k0"])
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    asyncio.run(scenario())


async def until_blocked(client: Any) -> None:
    """Until an XREAD waits on the server."""
    async with asyncio.timeout(WAIT_S):
        while not any(entry["cmd"] == "xread" and "b" in entry["flags"] for entry in await client.client_list()):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("cursor", ["nonsense", "-", "0+x", "+1", "1-1+-1"])
def test_a_cursor_that_no_stream_gave_is_refused(shared_farm: Any, cursor: str) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            await farm.submit([], "empty-for-cursors")
            with pytest.raises(ValueError, match="is no cursor"):
                await anext(farm.batch("empty-for-cursors").stream(cursor))

    asyncio.run(scenario())


def test_an_outcome_tells_when_where_and_how_long(shared_farm: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            batch = await farm.submit([CallOperation(key="p", target="farm_targets:pause", args=[0.2, "v"])])
            outcome = await anext(batch.stream())
            (worker,) = await farm.workers()
            created = (await batch.status()).created_at
            assert (outcome.key, outcome.ok, outcome.value, outcome.error) == ("p", True, "v", None)
            assert (outcome.attempt, outcome.worker) == (1, worker.name)
            assert 0.15 < outcome.duration_s < 5.0
            assert created - 1.0 < outcome.started_at < created + 10.0

    asyncio.run(scenario())
