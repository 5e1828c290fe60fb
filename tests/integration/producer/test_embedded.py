"""A farm of its own: starts, works, and leaves nothing behind, however its producer ends."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fuzzfarm import CallOperation, Farm, FuzzOperation, SettingsError, SubprocessJob, SyncFarm

WAIT_S = 30.0
SUPPORT = Path(__file__).parent.parent.parent / "support"


@pytest.fixture(autouse=True)
def private_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where embedded farms of a test live; their processes carry its name in their command line or environment."""
    folder = tempfile.TemporaryDirectory(prefix="ff-", dir="/tmp", ignore_cleanup_errors=True)  # short, for a socket
    monkeypatch.setenv("TMPDIR", folder.name)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    with folder as name:
        yield Path(name)


def living(folder: Path) -> list[int]:
    """Processes that were started below `folder`, ourselves left out."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            text = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            continue
        if str(folder).encode() in text and state != "Z" and process.name != str(os.getpid()):
            found.append(int(process.name))
    return found


def modes_of_folders(parent: Path) -> list[int]:
    return [stat.S_IMODE(folder.stat().st_mode) for folder in parent.iterdir()]


async def until_none_lives(folder: Path) -> None:
    async with asyncio.timeout(WAIT_S):
        while living(folder):
            await asyncio.sleep(0.02)


def test_it_starts_works_and_leaves_nothing(private_folder: Path) -> None:
    async def scenario() -> None:
        async with Farm.embedded(workers=2) as farm:
            assert modes_of_folders(private_folder) == [0o700]
            assert farm.url.startswith("unix://")
            operations = [
                CallOperation(key="call", target="farm_targets:echo", args=[1]),
                SubprocessJob(key="job", command=["echo", "x"]),
                FuzzOperation(key="fuzz", target="farm_targets:fuzz_small", examples=20),
            ]
            aggregate = await (await farm.submit(operations)).wait(WAIT_S)
            assert aggregate.errors == {}
            async with asyncio.timeout(WAIT_S):
                while len(await farm.workers()) < 2:
                    await asyncio.sleep(0.02)
            assert len(living(private_folder)) >= 4
        await until_none_lives(private_folder)

    asyncio.run(scenario())
    assert modes_of_folders(private_folder) == []


def test_a_farm_that_is_never_entered_leaves_no_folder(private_folder: Path) -> None:
    Farm.embedded()
    assert list(private_folder.iterdir()) == []


def test_settings_of_the_farm_hold_for_producer_and_workers() -> None:
    key = "0123456789abcdef0123456789abcdef"
    with SyncFarm.embedded(namespace="own", signing_key=key, max_payload_bytes=5_000) as farm:
        aggregate = farm.submit([CallOperation(target="farm_targets:echo", args=[1])]).wait(WAIT_S)
        assert aggregate.results == {"0": 1}
        with pytest.raises(ValueError, match=r"the limit is 5,000"):
            farm.submit([CallOperation(target="farm_targets:echo", args=["x" * 6_000])])


def test_lists_and_flags_reach_the_workers() -> None:
    with SyncFarm.embedded(allow_targets=["farm_targets"], insecure=True) as farm:
        operations = [
            CallOperation(key="in", target="farm_targets:echo", args=[1]),
            CallOperation(key="out", target="math:sqrt", args=[4]),
        ]
        aggregate = farm.submit(operations).wait(WAIT_S)
        assert aggregate.results == {"in": 1}
        assert "not allowed" in aggregate.errors["out"].message


@pytest.mark.parametrize(
    ("workers", "settings", "message"),
    [(0, {}, "needs at least one worker, not 0"), (1, {"lease_s": "soon"}, "lease_s"), (1, {"nothing": 1}, "nothing")],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(
    private_folder: Path, workers: int, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Farm.embedded(workers, **settings)
    assert list(private_folder.iterdir()) == []


def test_a_temporary_folder_that_is_too_long_for_a_socket_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    with pytest.raises(SettingsError, match="too long for a socket: set TMPDIR to a shorter one"):
        Farm.embedded()


def test_an_exception_in_the_context_stops_everything(private_folder: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(LookupError):
            async with Farm.embedded():
                raise LookupError
        await until_none_lives(private_folder)

    asyncio.run(scenario())


PRODUCER = """
import asyncio, sys
from fuzzfarm import CallOperation, Farm, SubprocessJob

async def main():
    async with Farm.embedded(workers=2, grace_s=0.2) as farm:
        batch = await farm.submit([
            SubprocessJob(key="job", command=["sleep", "600"], timeout_s=None),
            CallOperation(key="child", target="farm_targets:pause", args=[600], isolation="child", timeout_s=None),
            CallOperation(key="done", target="farm_targets:echo"),
        ])
        async for outcome in batch.stream():
            print(outcome.key, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: signal.Signals(number).name)
def test_a_producer_that_is_killed_leaves_no_process(private_folder: Path, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PRODUCER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as producer:
        assert producer.stdout is not None
        assert producer.stdout.readline() == "done\n"
        assert len(living(private_folder)) >= 5
        producer.send_signal(number)
        producer.wait(WAIT_S)
    asyncio.run(until_none_lives(private_folder))
