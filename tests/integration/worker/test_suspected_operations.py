"""Operations of a chunk of which one may have killed workers: what runs alone, and what is given up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from bench import WAIT_S, Bench, HeldStore, bench

from fuzzfarm import BatchAggregate, CallOperation, ErrorKind
from fuzzfarm_shared.keys import ONE_BY_ONE_DEATHS, AttemptId, AttemptPhase
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_shared.store import Claim
from fuzzfarm_worker.chunks import Attempt, work_of
from fuzzfarm_worker.chunks.suspicion import MOST_DEATHS, MOST_VAIN_ATTEMPTS


def echoes(count: int) -> list[CallOperation]:
    return [CallOperation(target="farm_targets:echo", args=[number]) for number in range(count)]


async def outcome(at: Bench) -> BatchAggregate:
    at.host.station.store.go_on.set()
    await at.run_all()
    return await at.batch.wait(WAIT_S)


async def claims(at: Bench) -> list[Claim]:
    """Claim all that waits."""
    replies = [await at.host.store.claim(AttemptId.parse(name)) for name in await at.waiting()]
    return [claim for claim in replies if isinstance(claim, Claim)]


INNOCENT = {
    "one worker died while it ran alone": (ONE_BY_ONE_DEATHS + 1, AttemptPhase.RUNNING),
    "it waited": (MOST_VAIN_ATTEMPTS + 1, AttemptPhase.WAITING),
    "it had not begun": (MOST_VAIN_ATTEMPTS - 1, None),
}


@pytest.mark.parametrize(("deaths", "phase"), INNOCENT.values(), ids=INNOCENT)
def test_an_operation_is_not_given_up_for_deaths_that_may_have_another_reason(
    host_settings: WorkerHostSettings, deaths: int, phase: AttemptPhase | None
) -> None:
    """Seen to fail where every death counts (operations.py), and where one alone is enough (`ALONE_DEATHS`)."""

    async def scenario() -> None:
        async with bench(host_settings, HeldStore, [*echoes(3)]) as (at, _):
            await at.die(deaths, phase=phase)
            assert (await outcome(at)).results == {"0": 0, "1": 1, "2": 2}

    asyncio.run(scenario())


GIVEN_UP = {
    "4 workers died while they ran this operation or its neighbours, the last 2 while it ran alone": (
        MOST_DEATHS,
        AttemptPhase.RUNNING,
    ),
    "30 attempts at this operation ended with their worker, or failed in it": (MOST_VAIN_ATTEMPTS, None),
}


@pytest.mark.parametrize(("message", "deaths", "phase"), [(key, *value) for key, value in GIVEN_UP.items()])
def test_an_operation_that_goes_on_killing_workers_is_given_up_and_its_neighbours_complete(
    host_settings: WorkerHostSettings, message: str, deaths: int, phase: AttemptPhase | None
) -> None:
    async def scenario() -> None:
        async with bench(host_settings, HeldStore, [*echoes(3)]) as (at, _):
            await at.die(deaths, phase=phase)
            aggregate = await outcome(at)
            assert aggregate.results == {"1": 1, "2": 2}
            error = aggregate.errors["0"]
            assert (error.kind, error.attempt) == (ErrorKind.WORKER_LOST, deaths + 1)
            assert error.message.startswith(message)

    asyncio.run(scenario())


class NotingStore(HeldStore):
    """Notes what attempts say that they do."""

    phases: list[AttemptPhase]

    async def enter(self, attempt: AttemptId, phase: AttemptPhase) -> bool:
        self.__dict__.setdefault("phases", []).append(phase)
        return await super().enter(attempt, phase)


@pytest.mark.parametrize("deaths", [ONE_BY_ONE_DEATHS - 1, ONE_BY_ONE_DEATHS])
def test_operations_that_run_alone_do_so_on_the_whole_worker(
    host_settings: WorkerHostSettings, tmp_path: Path, deaths: int
) -> None:
    """Seen to fail without the line (`Attempt.alone`): what kills a worker takes suspects of other batches with it."""
    settings = host_settings.model_copy(update={"max_concurrency": 10})
    present = [CallOperation(target="farm_targets:overlap", args=[str(tmp_path)]) for _ in range(3)]

    async def scenario() -> None:
        async with bench(settings, NotingStore, [*present]) as (at, store):
            others = await at.farm.submit(present)
            for _ in range(2 * deaths):
                await at.die(1)  # the first that waits; it then waits behind the other
            store.phases = []
            attempts = [Attempt(at.host.station, claim, work_of) for claim in await claims(at)]
            assert [attempt.claim.unrecorded for attempt in attempts] == [deaths, deaths]
            await asyncio.gather(*(attempt.run() for attempt in attempts))
            seen = [*(await at.batch.wait(WAIT_S)).results.values(), *(await others.wait(WAIT_S)).results.values()]
            alone = deaths == ONE_BY_ONE_DEATHS
            assert (max(seen) == 1) is alone
            assert (AttemptPhase.WAITING in store.phases) is alone

    asyncio.run(scenario())


def test_no_operation_runs_alone_while_an_earlier_one_has_no_outcome(host_settings: WorkerHostSettings) -> None:
    """Seen to fail where the others go on: deaths are held against the first, which this worker cannot run."""
    operations = [CallOperation(target="nowhere:function"), *echoes(2)]

    async def scenario() -> None:
        async with bench(host_settings, HeldStore, [*operations]) as (at, store):
            store.go_on.set()
            await at.die(ONE_BY_ONE_DEATHS)
            await at.host.run_attempt((await at.waiting())[0])
            [rest] = [claim for claim in await claims(at) if claim.start == 1]
            assert (rest.stop, len(rest.done), rest.unrecorded) == (3, 0, ONE_BY_ONE_DEATHS)
            await Attempt(at.host.station, rest, work_of).run()
            aggregate = await outcome(at)
            assert aggregate.results == {"1": 0, "2": 1}
            assert aggregate.errors["0"].kind is ErrorKind.REJECTED

    asyncio.run(scenario())


def test_what_was_started_by_a_worker_with_many_slots_is_suspected_on_one_with_few(
    host_settings: WorkerHostSettings,
) -> None:
    """Seen to fail where the slots of the new holder count: what killed the old one is not suspected."""
    settings = host_settings.model_copy(update={"max_concurrency": 1})

    async def scenario() -> None:
        async with bench(settings, HeldStore, [*echoes(10)]) as (at, store):
            store.go_on.set()
            for at_once in (6, 3):
                await at.die(1, at_once=at_once)
            attempt = await at.attempt()
            assert (attempt.claim.unrecorded, attempt.claim.at_once) == (2, 6)
            await attempt.run()
            [rest] = await claims(at)
            assert (rest.start, rest.deaths, rest.at_once) == (6, 0, 0)

    asyncio.run(scenario())


def test_what_ends_before_a_death_is_recorded_does_not_hide_what_killed(host_settings: WorkerHostSettings) -> None:
    """Seen to fail where the rest goes back unsuspected after one death: it kills another worker, and another."""
    settings = host_settings.model_copy(update={"max_concurrency": 2})
    operations = [*echoes(10), CallOperation(key="killer", target="farm_targets:kill_self")]

    async def scenario() -> None:
        async with bench(settings, HeldStore, [*operations]) as (at, _):
            await at.die(1)
            aggregate = await outcome(at)
            assert len(aggregate.results) == 10
            assert aggregate.errors["killer"].kind is ErrorKind.KILLED

    asyncio.run(scenario())
