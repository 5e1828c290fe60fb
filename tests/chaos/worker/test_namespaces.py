"""Workers on hosts of their own, with a cable that is pulled: namespaces, so that the kernel decides what is lost."""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from books import WAIT_S, check_books, runs, until, until_workers, waiting_calls
from hosts import Host, Network, NoHostsError, network

from fuzzfarm import CallOperation, Farm

LEASE_S = 1.0
KEY = "k" * 32
SETTINGS = {
    "lease_s": LEASE_S,
    "renew_every_s": 0.3,
    "answer_timeout_s": 1.0,
    "commit_every_s": 0.2,
    "signing_key": KEY,
    "allow_targets": "farm_targets",
    "allow_commands": "/usr/bin/true",
}


@pytest.fixture
def two_hosts() -> Iterator[Network]:
    with tempfile.TemporaryDirectory(prefix="ff-", dir="/tmp") as name:  # short, for a socket
        try:
            with network(Path(name), hosts=2) as made:
                yield made
        except NoHostsError as exc:
            pytest.skip(f"there are no network namespaces here: {exc}")


def start_on(host: Host, start_worker: Any, namespace: str) -> Any:
    command = host.command(sys.executable, "-m", "fuzzfarm_worker", "run")
    return start_worker(*command, redis_url=host.url, namespace=namespace, **SETTINGS)


async def until_back(farm: Farm, pid: int) -> None:
    """Wait until a worker has reported that it holds nothing."""
    since = time.time()
    async with asyncio.timeout(WAIT_S):
        while not any(
            worker.reported_at > since and worker.chunks == 0 for worker in await farm.workers() if worker.pid == pid
        ):
            await asyncio.sleep(0.02)


def test_a_host_whose_cable_is_pulled_for_longer_than_a_lease_is_refused_and_works_on(
    two_hosts: Network, start_worker: Any, tmp_path: Path
) -> None:
    """I1 and I3. Seen to fail without the take-over (`most = 0` in take_over.lua)."""
    first, second = two_hosts.hosts
    namespace = f"t{secrets.token_hex(4)}"

    async def scenario() -> None:
        async with Farm.connect(two_hosts.url, namespace=namespace, signing_key=KEY) as farm:
            cut_off = start_on(first, start_worker, namespace)
            await until_workers(farm, 1)
            last = CallOperation(key="last", target="farm_targets:note_and_wait_for", args=[str(tmp_path), "k4", "end"])
            batch = await farm.submit([*waiting_calls(tmp_path, 4), last])
            await until(lambda: len(runs(tmp_path)) == 5)
            other = start_on(second, start_worker, namespace)
            with first.unplugged():
                await until(lambda: len(runs(tmp_path)) == 10)
                (tmp_path / "go").touch()  # on both hosts; one of them cannot record it
                stream = batch.stream()
                assert {(await anext(stream)).key for _ in range(4)} == {f"k{n}" for n in range(4)}
            await until_back(farm, cut_off.pid)
            (tmp_path / "end").touch()
            await check_books(batch, {*(f"k{n}" for n in range(4)), "last"})
            assert {outcome.worker.split("-")[-2] async for outcome in batch.stream()} == {str(other.pid)}
            other.terminate()
            await asyncio.to_thread(other.wait, WAIT_S)
            following = await farm.submit(CallOperation.many("farm_targets:worker_pid", range(10)))
            assert set((await following.wait(WAIT_S)).results.values()) == {cut_off.pid}

    asyncio.run(scenario())


def test_the_books_balance_when_cables_are_pulled_one_after_the_other_and_both(
    two_hosts: Network, start_worker: Any
) -> None:
    """I1, I2 and I6. Seen to fail where a command is not repeated (`if True` before its error in `Patience.call`)."""
    first, second = two_hosts.hosts
    namespace = f"t{secrets.token_hex(4)}"
    count = 2_000

    async def scenario() -> None:
        async with Farm.connect(two_hosts.url, namespace=namespace, signing_key=KEY, chunk_operations=20) as farm:
            workers = [start_on(host, start_worker, namespace) for host in two_hosts.hosts]
            await until_workers(farm, 2)
            batch = await farm.submit(
                [CallOperation(key=f"k{n}", target="farm_targets:pause", args=[0.2, n]) for n in range(count)]
            )
            stream = batch.stream()
            for _ in range(20):
                await anext(stream)
            with first.unplugged():
                await asyncio.sleep(2 * LEASE_S)  # the cut
            with second.unplugged():
                await asyncio.sleep(2 * LEASE_S)
            with first.unplugged(), second.unplugged():
                await asyncio.sleep(2 * LEASE_S)
            assert not (await batch.status()).done, "the cuts came too late to matter: make the batch longer"
            status = await check_books(batch, {f"k{n}" for n in range(count)})
            assert status.succeeded == count
            assert [worker.poll() for worker in workers] == [None, None]

    asyncio.run(scenario())
