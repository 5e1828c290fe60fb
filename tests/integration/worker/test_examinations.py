"""Examinations on a worker: whatever goes wrong with one, its operation ends, and the finding is kept."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from bench import Bench, HeldStore, bench
from pydantic import SecretStr

from fuzzfarm import ErrorKind, Farm, Finding, FuzzOperation
from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.keys import AttemptId, ChunkKind, Part
from fuzzfarm_shared.outcomes import FuzzResult
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store.findings import finding_context, open_finding
from fuzzfarm_shared.values import pack
from fuzzfarm_worker.chunks import Attempt
from fuzzfarm_worker.fuzzing import FuzzChildren, confirming, shrinking
from fuzzfarm_worker.fuzzing.confirming import RUNS
from fuzzfarm_worker.fuzzing.interpreter import ChildLostError, Interpreter
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.host import WorkerHost
from fuzzfarm_worker.renewal import LeaseEnd

TARGET = "farm_targets:fuzz_small"
SMALLEST = "fuzz_small(number=1000)"
EXAMPLES = 200
KEY, OTHER_KEY = "k" * 32, "o" * 32
WAIT_S = 60.0


class Watched(Nursery):
    """Counts the children that it is asked for, and lets `before` see to each."""

    asked = 0
    before: Callable[[int], None] = staticmethod(lambda _number: None)

    async def child(self, target: Target, restrictions: Restrictions) -> Interpreter:
        self.asked += 1
        self.before(self.asked)
        return await super().child(target, restrictions)


def cannot_load(_number: int) -> None:
    raise TargetError(TARGET, "it cannot be loaded here")


def have_no_child(_number: int) -> None:
    raise ChildLostError("no child can be forked")


def lose_the_first_child(number: int) -> None:
    if number == 1:
        raise ChildLostError("the child died")


class Examiner:
    """A bench with one fuzz operation, whose search is over and has left one finding to examine."""

    def __init__(self, farm: Bench, nursery: Watched) -> None:
        self.farm = farm
        self.nursery = nursery

    async def kinds(self) -> dict[str, ChunkKind]:
        """What waits."""
        call, name = self.farm.host.server.call, self.key(Part.CHUNKS)
        records = [
            msgpack.unpackb(await call("HGET", name, AttemptId.parse(waiting).chunk), unicode_errors="replace")
            for waiting in await self.farm.waiting()
        ]
        kinds = [ChunkKind(record.get("k", "")) for record in records]
        return dict(zip(await self.farm.waiting(), kinds, strict=True))

    def key(self, part: Part) -> str:
        return self.farm.host.settings.keys.batch(self.farm.batch.key, part)

    async def attempt(self) -> Attempt:
        attempt = await self.farm.attempt()
        assert attempt.claim.kind is ChunkKind.EXAMINATION
        return attempt

    def found(self, attempt: Attempt) -> Finding:
        """What it examines, as the search told it."""
        identifier, envelope = attempt.claim.enclosed
        return open_finding(envelope, TARGET, identifier.decode(), self.farm.host.station.signer)

    async def parts(self) -> int:
        """How many results shards and examinations have left."""
        return int(await self.farm.host.server.call("LLEN", self.key(Part.PARTIALS) + "0"))

    async def outcome(self) -> Finding:
        """What the operation's outcome, and the farm, say in the end of the one finding."""
        await self.farm.run_all()
        result = (await self.farm.batch.wait(WAIT_S)).results["0"]
        assert isinstance(result, FuzzResult)
        assert result.examples == EXAMPLES
        [finding] = result.findings
        [known] = await self.farm.farm.findings()
        assert (known.example, known.replays, known.count) == (finding.example, finding.replays, finding.count)
        return finding


@asynccontextmanager
async def examiner(settings: WorkerHostSettings, target: str = TARGET) -> AsyncIterator[Examiner]:
    operation = FuzzOperation(target=target, examples=EXAMPLES)
    async with bench(settings, HeldStore, [operation]) as (farm, store):
        store.go_on.set()
        async with Watched(farm.host.station.tools.processes) as nursery:
            farm.host.station.nursery = nursery
            await farm.host.run_attempt((await farm.waiting())[0])
            made = Examiner(farm, nursery)
            assert list((await made.kinds()).values()) == [ChunkKind.EXAMINATION]
            yield made


@asynccontextmanager
async def another(settings: WorkerHostSettings) -> AsyncIterator[WorkerHost]:
    host = WorkerHost(settings)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


@pytest.fixture(autouse=True)
def ample_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine not cut runs short."""
    monkeypatch.setattr(confirming, "BUDGET_S", 60.0)
    monkeypatch.setitem(shrinking.shrink.__kwdefaults__, "budget_s", 60.0)


def is_as_found(finding: Finding) -> bool:
    return finding.replays == 0 and finding.example != SMALLEST


def test_a_finding_is_made_smaller_and_run_again(host_settings: WorkerHostSettings) -> None:
    async def scenario() -> None:
        async with examiner(host_settings) as at:
            finding = await at.outcome()
            assert (finding.example, finding.replays, finding.replay_failures) == (SMALLEST, RUNS, RUNS)

    asyncio.run(scenario())


def test_a_finding_whose_target_cannot_be_loaded_here_is_examined_elsewhere(host_settings: WorkerHostSettings) -> None:
    async def scenario() -> None:
        async with examiner(host_settings) as at, another(host_settings) as able:
            at.nursery.before = cannot_load
            [waiting] = await at.farm.waiting()
            await at.farm.host.run_attempt(waiting)
            [again] = await at.farm.waiting()
            await at.farm.host.run_attempt(again)  # which this worker does not get any more
            assert at.nursery.asked == 1
            [refused] = await at.farm.waiting()
            await able.run_attempt(refused)
            assert (await at.outcome()).replays == RUNS

    asyncio.run(scenario())


@pytest.mark.parametrize("trouble", [cannot_load, have_no_child])
def test_a_finding_that_no_worker_can_examine_stays_as_it_was(
    host_settings: WorkerHostSettings, caplog: pytest.LogCaptureFixture, trouble: Callable[[int], None]
) -> None:
    async def scenario() -> None:
        async with examiner(host_settings) as at:
            at.nursery.before = trouble
            assert is_as_found(await at.outcome())
            assert 1 <= at.nursery.asked <= 2

    asyncio.run(scenario())
    assert "a finding was not examined" in caplog.text


@pytest.mark.parametrize("is_forged", [True, False], ids=["forged", "missing"])
def test_a_finding_that_is_not_as_a_worker_told_it_is_not_examined(
    host_settings: WorkerHostSettings, caplog: pytest.LogCaptureFixture, is_forged: bool
) -> None:
    settings = host_settings.model_copy(update={"signing_key": SecretStr(KEY)})

    async def scenario() -> None:
        async with examiner(settings) as at:
            [known] = await at.farm.farm.findings()
            forged = pack(replace(known, example="forged()", choices=b"", index=0))
            envelope = Signer((OTHER_KEY.encode(),)).seal(forged, finding_context(known.target, known.id))
            write = ("HSET", at.key(Part.PAYLOADS), f"f0:{known.id}", envelope)
            erase = ("HDEL", at.key(Part.PAYLOADS), f"f0:{known.id}")
            assert await at.farm.host.server.call(*(write if is_forged else erase)) == int(not is_forged)
            finding = await at.outcome()
            assert is_as_found(finding)
            assert finding.example == known.example
            assert at.nursery.asked == 0

    asyncio.run(scenario())
    assert "a finding was not examined" in caplog.text


class Barren(Nursery):
    """Has no children."""

    async def child(self, target: Target, restrictions: Restrictions) -> Interpreter:
        raise ChildLostError("the child died")


def test_findings_of_an_operation_that_was_given_up_are_not_examined(host_settings: WorkerHostSettings) -> None:
    operation = FuzzOperation(target=TARGET, examples=10**9)  # so it gives way to the examination

    async def scenario() -> None:
        async with bench(host_settings, HeldStore, [operation]) as (farm, store):
            station = farm.host.station
            store.go_on.set()
            async with Watched(station.tools.processes) as nursery, Barren(station.tools.processes) as barren:
                station.nursery = nursery
                await farm.host.run_attempt((await farm.waiting())[0])
                at = Examiner(farm, nursery)
                waiting = {kind: name for name, kind in (await at.kinds()).items()}
                working = station.children
                async with FuzzChildren(station.tools.processes, nursery=barren) as station.children:
                    await farm.host.run_attempt(waiting[ChunkKind.UNITS])
                station.children = working
                before = await farm.farm.findings()
                await farm.run_all()
                assert (await farm.error()).kind is ErrorKind.KILLED
                assert await farm.farm.findings() == before
                assert (len(before), nursery.asked) == (1, 0)

    asyncio.run(scenario())


@pytest.mark.parametrize(("deaths", "replays"), [(1, RUNS), (2, 0)])
def test_a_finding_whose_examination_killed_two_workers_is_left_as_it_was(
    host_settings: WorkerHostSettings, deaths: int, replays: int
) -> None:
    async def scenario() -> None:
        async with examiner(host_settings) as at:
            await at.farm.die(deaths)
            assert (await at.outcome()).replays == replays
            assert (at.nursery.asked == 0) == (replays == 0)

    asyncio.run(scenario())


def test_a_worker_that_leaves_hands_an_examination_back(host_settings: WorkerHostSettings) -> None:
    async def scenario() -> None:
        async with examiner(host_settings) as at, another(host_settings) as stays:
            attempt, parts = await at.attempt(), await at.parts()
            at.nursery.before = lambda number: attempt.leave() if number == 5 else None
            await attempt.run()
            assert 5 <= at.nursery.asked < RUNS
            assert await at.parts() == parts
            [waiting] = await at.farm.waiting()
            again = await stays.store.claim(AttemptId.parse(waiting))
            assert (again.deaths, again.enclosed) == (0, attempt.claim.enclosed)
            await stays.store.hand_back_all(again.id, again.done)
            await stays.run_attempt((await at.farm.waiting())[0])
            finding = await at.outcome()
            assert (finding.example, finding.replays) == (SMALLEST, RUNS)
            assert at.nursery.asked < RUNS

    asyncio.run(scenario())


def test_a_finding_that_cannot_be_made_smaller_is_run_again_all_the_same(
    host_settings: WorkerHostSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with examiner(host_settings) as at:
            at.nursery.before = lose_the_first_child
            finding = await at.outcome()
            assert finding.example != SMALLEST
            assert (finding.replays, finding.replay_failures, at.nursery.asked) == (RUNS, RUNS, RUNS + 1)

    asyncio.run(scenario())
    assert "a finding was not made smaller" in caplog.text


def test_a_cancelled_batch_ends_with_what_it_found_while_that_is_examined(
    host_settings: WorkerHostSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # where our own threads look for it

    async def scenario() -> None:
        async with examiner(host_settings, "farm_targets:fuzz_stays") as at:
            attempt, parts = await at.attempt(), await at.parts()
            (tmp_path / "stay").touch()
            running = asyncio.create_task(attempt.run())
            while not (tmp_path / "pid").exists():
                await asyncio.sleep(0.01)
            pidfd = os.pidfd_open(int((tmp_path / "pid").read_text()))
            cancelling = asyncio.create_task(at.farm.batch.cancel())
            await running
            assert attempt.ended is LeaseEnd.CANCELLED
            assert select.select([pidfd], [], [], 5)[0], "the child still runs"
            os.close(pidfd)
            assert await at.parts() == parts
            finding = await at.outcome()
            assert (finding.type, finding.replays) == ("ValueError", 0)
            assert await cancelling == 0

    asyncio.run(scenario())


def test_a_search_goes_on_between_the_examinations_of_what_it_found(start_worker: Any, farm_settings: Any) -> None:
    target = "farm_targets:fuzz_three"

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            start_worker(max_children=1)
            batch = await farm.submit([FuzzOperation(target=target, examples=10**9)])
            progress: dict[int, list[int]] = {}
            async with asyncio.timeout(WAIT_S):
                while len(progress.get(3, [])) < 2:
                    found = await farm.findings(target)
                    examples = (await batch.status()).examples_done
                    examined = sum(finding.replays > 0 for finding in found)
                    progress.setdefault(examined, []).append(examples)
                    await asyncio.sleep(0.01)
            await batch.cancel()
            assert all(progress[number][0] < progress[number][-1] for number in (1, 2)), progress
            assert {finding.replays for finding in found} == {RUNS}
            assert {finding.example for finding in found} == {
                f"fuzz_three(number={number})" for number in (1001, 1002, -1001)
            }

    asyncio.run(scenario())
