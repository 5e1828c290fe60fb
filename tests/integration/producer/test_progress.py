"""The progress of subprocess jobs, seen from the producer while they run."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from fuzzfarm import Farm, Outcome, Progress, SubprocessJob, SyncFarm
from fuzzfarm_shared.keys import AttemptId, Keys, Part
from fuzzfarm_shared.progress import WATCHED_S, encode_progress
from fuzzfarm_shared.settings import ProducerSettings
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store import TellingStore

WAIT_S = 60.0

TALKS = "echo first; echo half of it >&2; while [ ! -e {go} ]; do sleep 0.02; done; echo last"
"""Writes to both streams, and ends when there is a file `go`."""


def talking_job(folder: Path, key: str = "talks") -> SubprocessJob:
    return SubprocessJob(key=key, command=["sh", "-c", TALKS.format(go=folder / "go")], timeout_s=WAIT_S)


def test_progress_comes_between_outcomes_while_a_job_runs(shared_farm: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm, asyncio.timeout(WAIT_S):
            batch = await farm.submit([SubprocessJob(key="quick", command=["true"]), talking_job(tmp_path)])
            told: list[Progress] = []
            outcomes: list[Outcome] = []
            async with aclosing(batch.stream(progress=True)) as stream:
                async for event in stream:
                    (told if isinstance(event, Progress) else outcomes).append(event)  # type: ignore[arg-type]
                    if len(told) == 2:
                        (tmp_path / "go").touch()
            assert sorted(outcome.key for outcome in outcomes) == ["quick", "talks"]
            assert [outcome.key for outcome in outcomes] == [outcome.key async for outcome in batch.stream()]
            first, second = told[:2]
            assert (first.key, first.attempt, first.worker) == ("talks", 1, outcomes[-1].worker)
            assert (first.stdout_bytes, first.stdout_tail) == (6, "first\n")
            assert (first.stderr_bytes, first.stderr_tail) == (11, "half of it\n")
            assert second.running_s > first.running_s
            assert stream.cursor == await cursor_at_the_end(batch)

    asyncio.run(scenario())


async def cursor_at_the_end(batch: Any) -> str:
    stream = batch.stream()
    async for _ in stream:
        pass
    return str(stream.cursor)


def test_a_blocking_stream_carries_progress_too(shared_farm: Any, tmp_path: Path) -> None:
    with SyncFarm.connect(**shared_farm) as farm:
        for event in farm.submit([talking_job(tmp_path)]).stream(progress=True):
            if isinstance(event, Progress):
                (tmp_path / "go").touch()
                last: Progress | Outcome = event
            else:
                assert isinstance(last, Progress)
                assert event.ok


def test_nothing_is_told_while_nobody_looks(shared_farm: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm, asyncio.timeout(WAIT_S):
            batch = await farm.submit([talking_job(tmp_path)])
            looked = batch.stream(progress=True)
            assert isinstance(await anext(looked), Progress)
            await looked.aclose()
            server = farm._server
            name = Keys(shared_farm["namespace"]).batch(batch.key, Part.PROGRESS)
            began = time.monotonic()
            while await server.call("EXISTS", name):
                await asyncio.sleep(0.05)
            assert time.monotonic() - began < 3 * WATCHED_S
            # The job still runs: workers have stopped telling, and what they told has expired.
            assert not (await batch.status()).done
            (tmp_path / "go").touch()
            await batch.wait(WAIT_S)

    asyncio.run(scenario())


@pytest.fixture
def told_settings(server_url: str, namespace: str) -> ProducerSettings:
    return ProducerSettings(redis_url=server_url, namespace=namespace, signing_key="k" * 40)


def test_forged_progress_is_left_out(told_settings: ProducerSettings) -> None:
    async def scenario() -> None:
        async with Farm.connect(
            told_settings.redis_url, namespace=told_settings.namespace, signing_key="k" * 40
        ) as farm:
            batch = await farm.submit([SubprocessJob(key="a", command=["true"])])
            server = farm._server
            store = TellingStore(server, told_settings.signer)
            name = Keys(told_settings.namespace).batch(batch.key, Part.PROGRESS)
            progress = [Progress("a", 1, "w", 1.0, 2, 3)]
            forged = Signer((b"x" * 40,)).seal(encode_progress(progress), ("progress", batch.key, "s", 0))
            await server.call("HSET", name, 0, forged, 1, b"\x01", 2, b"")
            assert await store.look(batch.key, "s") == {}

    asyncio.run(scenario())


def test_what_is_told_of_a_chunk_that_went_to_another_worker_is_dropped(told_settings: ProducerSettings) -> None:
    async def scenario() -> None:
        async with Farm.connect(
            told_settings.redis_url, namespace=told_settings.namespace, signing_key="k" * 40
        ) as farm:
            batch = await farm.submit([SubprocessJob(key="a", command=["true"])])
            store = TellingStore(farm._server, told_settings.signer)
            await store.look(batch.key, "s")
            await store.tell(AttemptId(batch.key, 0, "1-other"), "s", [Progress("a", 1, "w", 1.0, 2, 3)])
            assert await store.look(batch.key, "s") == {}

    asyncio.run(scenario())
