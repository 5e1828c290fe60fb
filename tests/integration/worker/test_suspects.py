"""Examples of a shard of which one may have killed workers: which run one by one, and which one is blamed."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, HeldStore, bench

from fuzzfarm import FuzzOperation, OperationError
from fuzzfarm_shared.keys import ONE_BY_ONE_DEATHS, AttemptId, AttemptPhase
from fuzzfarm_shared.outcomes import ErrorKind, Finding
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_shared.store import Claim, Commit, CommitReply
from fuzzfarm_worker.chunks import Attempt, work_of
from fuzzfarm_worker.chunks.suspicion import MOST_BLAMED, MOST_DEATHS, MOST_LOADING_DEATHS, MOST_VAIN_ATTEMPTS
from fuzzfarm_worker.fuzzing import FuzzChildren, ShardProgress
from fuzzfarm_worker.processes import ProcessStartError


class NotingStore(HeldStore):
    """Notes how many examples each commit records; `leaving` has its worker leave when it has blamed one."""

    examples: list[int]
    phases: dict[AttemptId, AttemptPhase]
    leaving: Attempt | None = None

    async def commit(self, attempt: AttemptId, commit: Commit) -> CommitReply:
        if commit.examples:
            self.__dict__.setdefault("examples", []).append(commit.examples)
        if commit.blamed and self.leaving is not None:
            self.leaving.leave()
        return await super().commit(attempt, commit)

    async def enter(self, attempt: AttemptId, phase: AttemptPhase) -> bool:
        self.__dict__.setdefault("phases", {})[attempt] = phase
        return await super().enter(attempt, phase)


class WatchedChildren(FuzzChildren):
    """Notes what runs, how many suspects do so at the same time, and how many shards seem to run with each of them."""

    store: NotingStore
    ran: list[range]
    seem: Counter[int]
    running = 0
    most = 0

    async def run_shard(
        self, operation: FuzzOperation, start: int, stop: int, **options: Any
    ) -> AsyncGenerator[ShardProgress, None]:
        self.ran.append(range(start, stop))
        alone = stop == start + 1
        if alone:
            self.seem[list(self.store.phases.values()).count(AttemptPhase.RUNNING)] += 1
        with self._suspect(alone):
            async for progress in super().run_shard(operation, start, stop, **options):
                yield progress

    async def load(self, operation: FuzzOperation, **options: Any) -> None:
        with self._suspect():
            await super().load(operation, **options)

    async def blame(self, *args: Any, **options: Any) -> Finding:
        with self._suspect():
            return await super().blame(*args, **options)

    @contextmanager
    def _suspect(self, is_one: bool = True) -> Iterator[None]:
        self.running += is_one
        self.most = max(self.most, self.running)
        yield
        self.running -= is_one


@asynccontextmanager
async def watched(at: Bench, store: NotingStore) -> AsyncIterator[WatchedChildren]:
    """Have the worker's examples run in children that are watched."""
    station = at.host.station
    async with WatchedChildren(station.tools.processes, 2) as children:
        station.children, children.store, children.ran, children.seem = children, store, [], Counter()
        yield children


def fuzz(examples: int = 300) -> FuzzOperation:
    return FuzzOperation(key="f", target="farm_targets:fuzz_nothing", examples=examples)


@pytest.fixture
def slow_commits(host_settings: WorkerHostSettings) -> WorkerHostSettings:
    """Settings of a worker that commits only what it has to."""
    return host_settings.model_copy(update={"commit_every_s": 600.0, "max_children": 2})


async def findings(at: Bench) -> list[Finding]:
    await at.run_all()
    result = (await at.batch.wait(30.0)).results["f"]
    assert result.examples == 300
    return list(result.findings)


async def failure(at: Bench) -> OperationError:
    await at.run_all()
    return (await at.batch.wait(30.0)).errors["f"]


DEATHS = {
    "what a recorder told": ([range(100, 105)], [100, *[1] * 5, 195]),
    "what both recorders told": ([range(90, 105), range(100, 103)], [100, *[1] * 3, 197]),
    "what the last recorder told": ([range(100, 105), range(10, 12)], [10, *[1] * 2, 288]),
    "all, where no recorder told": ([None, None], [1] * 300),
    "nothing, where one did not": ([None], [300]),
    "what was told, where another did not": ([None, range(295, 400)], [295, *[1] * 5]),
}


@pytest.mark.parametrize(("deaths", "commits"), DEATHS.values(), ids=DEATHS)
def test_what_may_have_killed_workers_runs_one_by_one_and_the_rest_does_not(
    slow_commits: WorkerHostSettings, deaths: list[range | None], commits: list[int]
) -> None:
    async def scenario() -> None:
        async with bench(slow_commits, NotingStore, [fuzz()]) as (at, store):
            for ran in deaths:
                await at.die(1, ran)
            assert await findings(at) == []
            assert store.examples == commits

    asyncio.run(scenario())


KILLERS = {
    "two recorders told": [range(90, 105), range(102, 103)],
    "recorders told of three deaths": [range(90, 105), range(102, 105), range(102, 103)],
    "two recorders told, and one did not": [None, range(102, 103), range(102, 103)],
    "two recorders told, and two did not": [None, None, range(102, 103), range(102, 103)],
    "one did not, when it was proven": [range(102, 103), range(102, 103), *[None] * MOST_DEATHS],
}


@pytest.mark.parametrize("deaths", KILLERS.values(), ids=KILLERS)
def test_the_one_example_that_ran_whenever_workers_died_is_a_finding_and_does_not_run(
    slow_commits: WorkerHostSettings, deaths: list[range | None]
) -> None:
    async def scenario() -> None:
        async with bench(slow_commits, NotingStore, [fuzz()]) as (at, store):
            for ran in deaths:
                await at.die(1, ran)
            async with watched(at, store) as children:
                [finding] = await findings(at)
            times = sum(ran is not None for ran in deaths)
            assert (finding.kind, finding.index, finding.message) == (
                ErrorKind.WORKER_LOST,
                102,
                f"{times} workers died while they ran this example",
            )
            assert not any(102 in shard for shard in children.ran)
            assert sum(store.examples) == 300

    asyncio.run(scenario())


LITTLE_EVIDENCE = {
    "it ran at one of them only": [range(102, 103), range(104, 105), range(102, 103)],
    "one died while it ran alone": [None] * (ONE_BY_ONE_DEATHS + 1),
}


@pytest.mark.parametrize("deaths", LITTLE_EVIDENCE.values(), ids=LITTLE_EVIDENCE)
def test_an_example_is_not_blamed_for_deaths_that_may_have_another_reason(
    slow_commits: WorkerHostSettings, deaths: list[range | None]
) -> None:
    async def scenario() -> None:
        async with bench(slow_commits, NotingStore, [fuzz()]) as (at, _):
            for ran in deaths:
                await at.die(1, ran)
            assert await findings(at) == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "deaths",
    [[range(102, 103), range(102, 103), None], [None] * (MOST_DEATHS + 1)],
    ids=["recorded", "not"],
)
def test_an_example_is_not_even_generated_when_a_worker_died_of_its_blame(
    slow_commits: WorkerHostSettings, deaths: list[range | None]
) -> None:
    async def scenario() -> None:
        async with bench(slow_commits, NotingStore, [fuzz()]) as (at, _):
            for ran in deaths:
                await at.die(1, ran)
            [finding] = await findings(at)
            assert (finding.kind, finding.example) == (
                ErrorKind.WORKER_LOST,
                "fuzz_nothing(...)  # generating it ends the interpreter",
            )
            assert finding.index == (0 if deaths[0] is None else 102)

    asyncio.run(scenario())


INNOCENT = {
    "it waited": [None] * 6,
    "its target was loaded a few times": [None, *[AttemptPhase.LOADING] * (MOST_LOADING_DEATHS - 1)],
    "its target was loaded in between": [
        None,
        *[AttemptPhase.LOADING] * (MOST_LOADING_DEATHS - 1),
        AttemptPhase.RUNNING,
        AttemptPhase.LOADING,
    ],
}


@pytest.mark.parametrize("phases", INNOCENT.values(), ids=INNOCENT)
def test_a_shard_of_which_nothing_ran_is_innocent(
    slow_commits: WorkerHostSettings, phases: list[AttemptPhase | None]
) -> None:
    """Seen to fail where every death counts (take_over.lua): an example is blamed that never ran."""

    async def scenario() -> None:
        async with bench(slow_commits, NotingStore, [fuzz()]) as (at, _):
            for phase in phases:
                await at.die(1, phase=phase)
            assert await findings(at) == []

    asyncio.run(scenario())


def test_a_target_that_kills_whoever_loads_it_is_given_up(slow_commits: WorkerHostSettings) -> None:
    async def scenario() -> None:
        async with bench(slow_commits, NotingStore, [fuzz()]) as (at, _):
            await at.die(1, phase=None)
            await at.die(MOST_LOADING_DEATHS, phase=AttemptPhase.LOADING)
            error = await failure(at)
            assert error.kind is ErrorKind.WORKER_LOST
            assert error.message.startswith(
                "10 times in a row workers died while they loaded farm_targets:fuzz_nothing: "
            )

    asyncio.run(scenario())


def test_a_target_whose_examples_go_on_killing_workers_is_given_up_and_its_findings_stay(
    slow_commits: WorkerHostSettings,
) -> None:
    """Seen to fail where `blamed` is not counted (commit.lua): it goes on for ever."""

    async def scenario() -> None:
        async with bench(slow_commits, NotingStore, [fuzz()]) as (at, store):
            for index in range(MOST_BLAMED):
                await at.die(2, range(index, index + 1))
                store.leaving = await at.attempt()
                await store.leaving.run()
            error = await failure(at)
            assert error.kind is ErrorKind.WORKER_LOST
            assert error.message.startswith("10 examples of farm_targets:fuzz_nothing have killed workers: see ")
            assert store.examples == [1] * MOST_BLAMED
            [finding] = await at.farm.findings("farm_targets:fuzz_nothing")
            assert (finding.kind, finding.count) == (ErrorKind.WORKER_LOST, MOST_BLAMED)

    asyncio.run(scenario())


def test_waiting_for_other_suspects_does_not_count_as_time_of_a_shard(slow_commits: WorkerHostSettings) -> None:
    async def scenario() -> None:
        quick = fuzz().model_copy(update={"timeout_s": 4.0})
        async with bench(slow_commits, NotingStore, [quick]) as (at, _):
            await at.die(1, range(10))
            async with at.host.station.suspect_shards:
                running = asyncio.create_task(at.run_all())
                await asyncio.wait([running], timeout=5.0)
            await running
            assert await findings(at) == []

    asyncio.run(scenario())


def test_a_suspect_that_hangs_after_waiting_still_has_its_time_limit(slow_commits: WorkerHostSettings) -> None:
    async def scenario() -> None:
        hanging = FuzzOperation(
            key="f", target="farm_targets:fuzz_hangs", examples=300, timeout_s=1.0, example_timeout_s=60
        )
        async with bench(slow_commits, NotingStore, [hanging]) as (at, _):
            await at.die(1, range(10))
            assert (await failure(at)).kind is ErrorKind.TIMEOUT

    asyncio.run(scenario())


def test_an_operation_of_which_no_attempt_gets_anything_done_is_given_up(slow_commits: WorkerHostSettings) -> None:
    async def scenario() -> None:
        async with bench(slow_commits, NotingStore, [fuzz()]) as (at, _):
            await at.die(MOST_VAIN_ATTEMPTS, phase=None)
            error = await failure(at)
            assert error.kind is ErrorKind.WORKER_LOST
            assert error.message.startswith("30 attempts at a part of this operation ended with their worker, or")

    asyncio.run(scenario())


def test_a_worker_that_leaves_loads_nothing(slow_commits: WorkerHostSettings) -> None:
    async def scenario() -> None:
        async with bench(slow_commits, NotingStore, [fuzz()]) as (at, store):
            await at.die(1, range(10))
            leaving = await at.attempt()
            leaving.stopping = True
            await leaving.run()
            waiting, suspects = await at.attempt(), at.host.station.suspect_shards
            async with suspects:
                running = asyncio.create_task(waiting.run())
                while suspects._wanted < 2:
                    await asyncio.sleep(0.01)
                waiting.stopping = True
            await running
            assert "phases" not in store.__dict__
            assert at.host.station.children.started == 0
            assert await findings(at) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [ProcessStartError(["python"], "no room"), OSError(errno.EMFILE, "too many files")])
def test_a_worker_that_lives_on_has_not_died_of_loading(
    slow_commits: WorkerHostSettings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Seen to fail where the shard goes on saying LOADING (chunks/shards.py)."""

    async def fail(*_: Any, **__: Any) -> None:
        raise error

    async def scenario() -> None:
        hasty = slow_commits.model_copy(update={"lease_s": 0.5, "renew_every_s": 0.1})
        async with bench(hasty, NotingStore, [fuzz()]) as (at, _):
            await at.die(1, range(10))
            with monkeypatch.context() as patch:
                patch.setattr(at.host.station.nursery, "_forked", fail)
                await at.run_all()
            while not await at.waiting():
                await asyncio.sleep(0.05)
            claim = (await at.attempt()).claim
            assert (claim.deaths, claim.unrecorded, claim.loading_deaths) == (2, 0, 0)

    asyncio.run(scenario())


def test_a_worker_that_cannot_read_recordings_works_on(slow_commits: WorkerHostSettings, tmp_path: Path) -> None:
    """Seen to fail where `OSError` ends the heartbeat (host.py)."""
    root = tmp_path / "recordings"

    async def scenario() -> None:
        async with bench(slow_commits.model_copy(update={"recordings": root}), NotingStore, [fuzz()]) as (at, _):
            shutil.rmtree(root)
            await at.host._report_and_take_over()
            assert await findings(at) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("proven", [False, True])
def test_suspects_of_two_operations_never_run_at_the_same_time_on_one_worker(
    slow_commits: WorkerHostSettings, proven: bool
) -> None:
    """Seen to fail without `station.suspect_shards`, and without WAITING (chunks/shards.py): both would be blamed."""

    async def scenario() -> None:
        operations = [fuzz().model_copy(update={"key": key}) for key in "ab"]
        async with bench(slow_commits, NotingStore, [*operations]) as (at, store):
            for _ in operations:
                await at.die(1, range(20))  # the first that waits; it then waits behind the other
            await at.die(int(proven), range(5, 6))
            async with watched(at, store) as children:
                claims = [await at.host.store.claim(AttemptId.parse(name)) for name in await at.waiting()]
                attempts = [Attempt(at.host.station, claim, work_of) for claim in claims if isinstance(claim, Claim)]
                assert [attempt.claim.suspects is not None for attempt in attempts] == [True, True]
                await asyncio.gather(*(attempt.run() for attempt in attempts))
                assert children.most == 1
                assert children.seem.total() == (20 if proven else 40)
                assert proven or children.seem[1] >= 37, "one that is just about to wait may seem to run"
            await at.run_all()

    asyncio.run(scenario())
