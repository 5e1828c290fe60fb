"""The progress of subprocess jobs, seen from the producer while they run."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

from fuzzfarm import Farm, Outcome, Progress, SubprocessJob, SyncFarm
from fuzzfarm.streams import LiveStream
from fuzzfarm_shared.connection import connect
from fuzzfarm_shared.keys import Keys, Part
from fuzzfarm_shared.progress import WATCHED_S
from fuzzfarm_shared.settings import ProducerSettings
from fuzzfarm_shared.store import OutcomeCursor, ReadingStore, Server, TellingStore

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
            assert first.memory_bytes > 0
            assert first.cpu_time_s >= 0
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


def test_outcomes_come_while_the_server_of_progress_does_not_answer(shared_farm: Any) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            settings = ProducerSettings(redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
            async with Farm.connect(**shared_farm) as farm, asyncio.timeout(WAIT_S):
                batch = await farm.submit([SubprocessJob(key="quick", command=["true"])])
                readings = ReadingStore(farm._server, farm.settings.signer)
                telling = TellingStore(Server(connect(settings), settings), settings.signer)
                async with aclosing(LiveStream(readings, telling, batch.key, OutcomeCursor())) as stream:
                    assert [event.key async for event in stream] == ["quick"]
                silent.setblocking(False)
                silent.accept()[0].close()  # it was asked

    asyncio.run(scenario())
