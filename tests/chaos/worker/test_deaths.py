"""Workers that die, stop, or are told to go, in the middle of a batch: nothing is lost and nothing recorded twice."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from books import WAIT_S, check_books, runs, until, until_workers, waiting_calls

from fuzzfarm import CallOperation, ErrorKind, Farm, FuzzOperation, SubprocessJob
from fuzzfarm_worker.chunks.suspicion import MOST_LOADING_DEATHS

BACK_WITHIN_S = 5.0
"""Invariant I3: chunks of a killed worker run again within this."""

SUPERVISED = (sys.executable, "-m", "fuzzfarm_worker", "supervise", "--processes", "1")
HASTY = {"lease_s": 0.5, "renew_every_s": 0.1, "commit_every_s": 0.1}
"""Settings with which a death is noticed within a second."""

through_proc = pytest.mark.skipif(sys.platform != "linux", reason="finds the worker through /proc")


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which targets leave their notes: their temporary one."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_killed_workers_chunks_run_elsewhere_within_seconds(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    """I3. Seen to fail without the take-over of ended leases (`most = 0` in take_over.lua): nothing runs again."""

    async def scenario() -> None:
        async with Farm.connect(**farm_settings, chunk_operations=5) as farm:
            first = start_worker(max_concurrency=10)
            batch = await farm.submit(waiting_calls(tmp_path, 10))
            await until(lambda: len(runs(tmp_path)) == 10)
            second = start_worker(max_concurrency=10)
            await until_workers(farm, 2)
            first.kill()
            killed_at = time.monotonic()
            await until(lambda: len(runs(tmp_path)) > 10)
            assert time.monotonic() - killed_at < BACK_WITHIN_S
            (tmp_path / "go").touch()
            await check_books(batch, {f"k{n}" for n in range(10)})
            outcomes = [outcome async for outcome in batch.stream()]
            assert {outcome.attempt for outcome in outcomes} == {2}
            assert {outcome.worker.split("-")[-2] for outcome in outcomes} == {str(second.pid)}

    asyncio.run(scenario())


def test_killing_one_of_two_workers_in_a_large_batch_loses_and_repeats_nothing(
    start_worker: Any, farm_settings: Any
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings, chunk_operations=50) as farm:
            victim, _ = (start_worker(lease_s=1, renew_every_s=0.3) for _ in range(2))
            await until_workers(farm, 2)
            batch = await farm.submit(CallOperation.many("farm_targets:pause", [0.01] * 6_000))
            stream = batch.stream()
            for _ in range(300):
                await anext(stream)
            victim.kill()
            await check_books(batch, set(map(str, range(6_000))))
            assert (await batch.status()).succeeded == 6_000

    asyncio.run(scenario())


def test_a_worker_that_stood_still_beyond_its_lease_is_fenced(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    """I1. Seen to fail without the comparison of tokens (`if not rec then` in commit.lua): the zombie's word counts."""

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            sleeper = start_worker(lease_s=1, renew_every_s=0.3)
            batch = await farm.submit(waiting_calls(tmp_path, 3))
            await until(lambda: len(runs(tmp_path)) == 3)
            sleeper.send_signal(signal.SIGSTOP)
            try:
                other = start_worker(lease_s=1, renew_every_s=0.3)
                await until(lambda: len(runs(tmp_path)) > 3)
            finally:
                sleeper.send_signal(signal.SIGCONT)
            (tmp_path / "go").touch()
            await check_books(batch, {"k0", "k1", "k2"})
            workers = {outcome.worker.split("-")[-2] async for outcome in batch.stream()}
            assert workers == {str(other.pid)}
            following = await farm.submit(CallOperation.many("farm_targets:echo", range(100)))
            assert len((await following.wait(WAIT_S)).results) == 100
            assert sleeper.poll() is None

    asyncio.run(scenario())


def test_a_worker_told_to_go_hands_back_without_losing_or_repeating_recorded_work(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            leaving = start_worker(max_concurrency=4, grace_s=0.2, commit_every_s=0.1, share_after_s=60)
            quick = [
                CallOperation(key=f"q{n}", target="farm_targets:note", args=[str(tmp_path), f"q{n}"]) for n in range(20)
            ]
            batch = await farm.submit([*quick, *waiting_calls(tmp_path, 8)])
            stream = batch.stream()
            for _ in range(20):
                await anext(stream)
            await until(lambda: len(runs(tmp_path)) == 4)
            leaving.terminate()
            assert await asyncio.to_thread(leaving.wait, 20.0) == 0
            other = start_worker(max_concurrency=20)
            # Handed back, not left to its lease: the chunk is claimed at once, without a death.
            await until(lambda: len(runs(tmp_path)) == 12)
            (tmp_path / "go").touch()
            await check_books(batch, {*(f"q{n}" for n in range(20)), *(f"k{n}" for n in range(8))})
            assert all(len((tmp_path / f"q{n}").read_text().splitlines()) == 1 for n in range(20))
            assert (await batch.status()).late_duplicates == 0
            assert runs(tmp_path).count(other.pid) == 8

    asyncio.run(scenario())


def test_operations_that_end_within_the_grace_period_are_recorded_by_the_leaving_worker(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            leaving = start_worker(grace_s=20)
            batch = await farm.submit(waiting_calls(tmp_path, 3))
            await until(lambda: len(runs(tmp_path)) == 3)
            leaving.terminate()
            (tmp_path / "go").touch()
            assert await asyncio.to_thread(leaving.wait, 20.0) == 0
            await check_books(batch, {"k0", "k1", "k2"})
            assert len(runs(tmp_path)) == 3

    asyncio.run(scenario())


def test_an_operation_that_kills_its_worker_is_named_by_the_second_death_and_its_neighbours_complete(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    """I4. Seen to fail without children after a death (`recorded = False` in chunks/operations.py)."""

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(*SUPERVISED, **HASTY)
            neighbours = [CallOperation(key=f"k{n}", target="farm_targets:echo", args=[n]) for n in range(20)]
            killer = CallOperation(
                key="killer", target="farm_targets:note_and_kill_self", args=[str(tmp_path), "killer"], retries=5
            )
            batch = await farm.submit([*neighbours[:10], killer, *neighbours[10:]])
            aggregate = await batch.wait(WAIT_S)
            assert aggregate.results == {f"k{n}": n for n in range(20)}
            error = aggregate.errors["killer"]
            assert (error.kind, error.signal, error.attempt) == (ErrorKind.KILLED, "SIGKILL", 2)
            assert "before that a worker died that ran it" in error.message
            assert len((tmp_path / "killer").read_text().splitlines()) == 2
            await check_books(batch, {*(f"k{n}" for n in range(20)), "killer"})

    asyncio.run(scenario())


@through_proc
def test_a_job_that_kills_its_worker_is_given_up_after_two_tries_alone_among_slow_neighbours(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    """I4. Seen to fail where what is left is shared while its operations run one by one."""
    # The shell's parent is the guardian, whose parent is the worker.
    kill = f"echo run >> {tmp_path}/killer; kill -9 $(awk '{{print $4}}' /proc/$PPID/stat); sleep 60"

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(*SUPERVISED, **HASTY)
            slow = [SubprocessJob(key=f"n{n}", command=["sleep", "0.2"]) for n in range(20)]
            killer = SubprocessJob(key="killer", command=["sh", "-c", kill])
            batch = await farm.submit([*slow[:10], killer, *slow[10:]])
            aggregate = await batch.wait(WAIT_S)
            assert set(aggregate.results) == {f"n{n}" for n in range(20)}
            assert aggregate.errors["killer"].kind is ErrorKind.WORKER_LOST
            assert len((tmp_path / "killer").read_text().splitlines()) == 4

    asyncio.run(scenario())


@through_proc
@pytest.mark.parametrize(
    ("recordings", "message"),
    [
        ("recordings", "2 workers died while they ran this example"),
        ("a-file/no-folder", "4 workers died, nobody knows of what, the last 2 when this example was next"),
    ],
)
def test_an_example_that_kills_workers_is_a_finding_and_the_others_run(
    start_worker: Any,
    farm_settings: Any,
    notes: Path,
    recordings: str,
    message: str,
) -> None:
    """Seen to fail where recorders are not told (`of_the_dead` in host.py): it costs two workers more."""
    (notes / "a-file").touch()

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(*SUPERVISED, **HASTY, recordings=notes / recordings)
            batch = await farm.submit([FuzzOperation(key="f", target="worker_killers:kills_once", examples=300)])
            result = (await batch.wait(WAIT_S)).results["f"]
            assert result.examples == 300
            [finding] = result.findings
            number = (notes / "killing-numbers").read_text()
            assert finding.example == f"kills_once(number={number})"
            assert (finding.kind, finding.message) == (ErrorKind.WORKER_LOST, message)

    asyncio.run(scenario())


@through_proc
def test_two_examples_of_a_shard_that_kill_workers_are_counted_and_the_others_run(
    start_worker: Any, farm_settings: Any, notes: Path
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(*SUPERVISED, **HASTY)
            batch = await farm.submit([FuzzOperation(key="f", target="worker_killers:kills_twice", examples=300)])
            result = (await batch.wait(WAIT_S)).results["f"]
            assert result.examples == 300
            numbers = (notes / "killing-numbers").read_text().split()
            [finding] = result.findings  # nobody knows where they did it
            assert (finding.kind, finding.count, len(numbers)) == (ErrorKind.WORKER_LOST, 2, 2)
            assert finding.example in {f"kills_twice(number={number})" for number in numbers}

    asyncio.run(scenario())


@through_proc
def test_an_example_that_kills_workers_while_it_is_drawn_is_a_finding_that_says_so(
    start_worker: Any, farm_settings: Any, notes: Path
) -> None:
    """Seen to fail where every try draws it for its finding (`may_generate` in chunks/suspicion.py): it never ends."""

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(*SUPERVISED, **HASTY)
            fuzz = FuzzOperation(
                key="f", target="worker_killers:takes", strategy="worker_killers:NUMBERS", examples=300
            )
            result = (await (await farm.submit([fuzz])).wait(WAIT_S)).results["f"]
            assert result.examples == 300
            [finding] = result.findings
            assert (finding.kind, finding.example) == (
                ErrorKind.WORKER_LOST,
                "takes(...)  # generating it ends the interpreter",
            )

    asyncio.run(scenario())


@through_proc
def test_a_slow_import_is_not_given_up_for_what_jobs_beside_it_do(start_worker: Any, farm_settings: Any) -> None:
    """Seen to fail where three deaths are enough (`MOST_LOADING_DEATHS`): the whole operation is lost."""
    kill = "sleep 1; kill -9 $(awk '{print $4}' /proc/$PPID/stat); sleep 60"

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(*SUPERVISED, **HASTY)
            fuzz = FuzzOperation(key="slow", target="slow_loading:fuzz_nothing", examples=300)
            killers = [SubprocessJob(key=f"killer {n}", command=["sh", "-c", kill]) for n in range(2)]
            aggregate = await (await farm.submit([fuzz, *killers])).wait(WAIT_S)
            assert aggregate.results["slow"].examples == 300
            assert aggregate.results["slow"].findings == []
            assert {error.kind for error in aggregate.errors.values()} == {ErrorKind.WORKER_LOST}

    asyncio.run(scenario())


@through_proc
def test_a_target_that_kills_workers_while_it_is_loaded_is_given_up_and_its_neighbour_completes(
    start_worker: Any, farm_settings: Any, notes: Path
) -> None:
    """Seen to fail where loading is not told apart from running (`enter` in chunks/shards.py): an example is blamed."""

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(*SUPERVISED[:-1], "4", **HASTY)  # each of them waits longer after each death
            batch = await farm.submit(
                [
                    FuzzOperation(key="killer", target="worker_killing_import:f", examples=300),
                    FuzzOperation(key="neighbour", target="farm_targets:fuzz_nothing", examples=300),
                ]
            )
            aggregate = await batch.wait(WAIT_S)
            error = aggregate.errors["killer"]
            assert error.kind is ErrorKind.WORKER_LOST
            assert "times in a row workers died while they loaded worker_killing_import:f: " in error.message
            assert len((notes / "imports").read_text().splitlines()) > MOST_LOADING_DEATHS  # the first is no suspect
            assert aggregate.results["neighbour"].examples == 300
            assert aggregate.results["neighbour"].findings == []
            await check_books(batch, {"killer", "neighbour"})

    asyncio.run(scenario())


def test_an_example_that_kills_the_worker_that_it_runs_in_costs_one_worker_and_is_a_finding(
    start_worker: Any, farm_settings: Any, notes: Path
) -> None:
    """Seen to fail where `isolation="none"` holds after a death, too (chunks/shards.py): three workers die."""

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(*SUPERVISED, **HASTY)
            fuzz = FuzzOperation(key="f", target="farm_targets:fuzz_crashes", examples=300, isolation="none")
            batch = await farm.submit([fuzz, CallOperation(key="call", target="farm_targets:echo", args=[1])])
            aggregate = await batch.wait(WAIT_S)
            assert aggregate.results["call"] == 1
            result = aggregate.results["f"]
            assert result.examples == 300
            [finding] = result.findings
            assert (finding.kind, finding.type) == (ErrorKind.KILLED, "SIGSEGV")
            assert int(finding.example.removeprefix("fuzz_crashes(number=").removesuffix(")")) % 50 == 7
            in_worker, *in_children = (notes / "crashes").read_text().splitlines()
            assert in_worker == "fuzzing farm_targets:fuzz_crashes"
            assert set(in_children) == {"MainThread"}
            await check_books(batch, {"f", "call"})

    asyncio.run(scenario())


def test_a_module_that_kills_whoever_imports_it_does_not_kill_workers_for_ever(
    start_worker: Any, farm_settings: Any
) -> None:

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(*SUPERVISED, lease_s=0.5, renew_every_s=0.1)
            batch = await farm.submit([CallOperation(key="killer", target="deadly_import:f")])
            error = (await batch.wait(WAIT_S)).errors["killer"]
            assert (error.kind, error.attempt) == (ErrorKind.REJECTED, 2)
            assert "SIGKILL" in error.message

    asyncio.run(scenario())


def test_an_operation_that_blocks_the_worker_past_its_limit_costs_the_worker_not_the_batch(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    """A coroutine that blocks the loop for ever: the renewal thread ends the worker after timeout and margin."""
    supervised = (sys.executable, "-m", "fuzzfarm_worker", "supervise")

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(*supervised, lease_s=0.5, renew_every_s=0.1)
            hang = CallOperation(
                key="hang", target="farm_targets:block_loop_once", args=[str(tmp_path), "hang"], timeout_s=0.1
            )
            fine = CallOperation(key="fine", target="farm_targets:echo", timeout_s=0.1)
            batch = await farm.submit([hang, fine])
            await check_books(batch, {"hang", "fine"})
            assert len((tmp_path / "hang").read_text().splitlines()) == 2

    asyncio.run(scenario())
