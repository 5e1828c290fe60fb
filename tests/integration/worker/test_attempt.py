"""Attempts that fail or are cut off: no unit is lost, and none is tried for ever."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from bench import HeldStore, bench

from fuzzfarm import (
    CallOperation,
    ErrorKind,
    FuzzOperation,
    Progress,
    SubprocessJob,
)
from fuzzfarm_shared.errors import FarmUnreachableError
from fuzzfarm_shared.operations import AnyOperation
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_shared.store import CommitReply
from fuzzfarm_worker.chunks.suspicion import MOST_DEATHS
from fuzzfarm_worker.fuzzing import FuzzChildren
from fuzzfarm_worker.fuzzing.interpreter import ChildLostError, Interpreter
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.processes.guarded import guardian_pid
from fuzzfarm_worker.renewal import LeaseEnd

WAIT_S = 30.0


class FailingStore(HeldStore):
    """Loses the server at the first commit."""

    async def commit(self, *_: Any) -> CommitReply:
        self.asked.set()
        await self.go_on.wait()
        raise FarmUnreachableError("unix://test", "no server answers")


def test_a_rest_whose_hand_back_met_a_cancellation_gets_its_outcome(host_settings: WorkerHostSettings) -> None:
    operation = FuzzOperation(target="farm_targets:fuzz_small", examples=10_000)
    children = host_settings.model_copy(update={"max_children": 4})  # so there is a rest for others

    async def scenario() -> None:
        async with bench(children, HeldStore, [operation]) as (farm, store):
            attempt = await farm.attempt()
            running = asyncio.create_task(attempt.run())
            await store.asked.wait()
            await farm.batch.cancel()
            attempt.lease.end(LeaseEnd.CANCELLED)
            store.go_on.set()
            await running
            await farm.run_all()
            assert (await farm.batch.status()).pending == 0

    asyncio.run(scenario())


def test_units_of_a_commit_that_failed_after_its_caller_was_cancelled_are_not_handed_back_as_done(
    host_settings: WorkerHostSettings,
) -> None:
    operations: list[AnyOperation] = [CallOperation(target="farm_targets:echo") for _ in range(3)]

    async def scenario() -> None:
        async with bench(host_settings, FailingStore, operations) as (farm, store):
            attempt = await farm.attempt()
            attempt.done.add_all(range(2))
            committing = asyncio.create_task(attempt.commit(units=2, succeeded=2))
            await store.asked.wait()
            committing.cancel()
            store.go_on.set()
            with pytest.raises(FarmUnreachableError):
                await attempt.hand_back_all()
            with pytest.raises(asyncio.CancelledError):
                await committing
            assert await farm.waiting() == []  # left to its lease, with what the server knows

    asyncio.run(scenario())


class Barren(Nursery):
    """Has no children."""

    async def child(self, target: Target, restrictions: Restrictions) -> Interpreter:
        raise ChildLostError("the child died")


def test_a_fuzz_operation_whose_children_do_not_work_fails_at_once(host_settings: WorkerHostSettings) -> None:
    operation = FuzzOperation(target="farm_targets:fuzz_small", examples=10_000)

    async def scenario() -> None:
        async with (
            bench(host_settings, HeldStore, [operation]) as (farm, store),
            ProcessManager() as processes,
            FuzzChildren(processes, nursery=Barren(processes)) as children,
        ):
            store.go_on.set()
            farm.host.station.children = children
            await farm.run_all()
            error = await farm.error()
            assert (error.kind, error.message, error.attempt) == (ErrorKind.KILLED, "the child died", 1)

    asyncio.run(scenario())


def test_a_merge_is_given_up_after_many_deaths(host_settings: WorkerHostSettings) -> None:
    operation = FuzzOperation(target="farm_targets:fuzz_nothing", examples=10)

    async def scenario() -> None:
        async with bench(host_settings, HeldStore, [operation]) as (farm, store):
            store.go_on.set()
            await farm.host.run_attempt((await farm.waiting())[0])
            await farm.die(MOST_DEATHS)
            await farm.run_all()
            error = await farm.error()
            assert error.kind is ErrorKind.WORKER_LOST
            assert "4 attempts" in error.message

    asyncio.run(scenario())


def test_the_example_at_which_so_many_workers_died_is_a_finding_and_the_others_run(
    host_settings: WorkerHostSettings,
) -> None:
    operation = FuzzOperation(target="farm_targets:fuzz_nothing", examples=10)

    async def scenario() -> None:
        async with bench(host_settings, HeldStore, [operation]) as (farm, store):
            store.go_on.set()
            await farm.die(MOST_DEATHS)
            await farm.run_all()
            result = (await farm.batch.wait(WAIT_S)).results["0"]
            assert result.examples == 10
            [finding] = result.findings
            assert (finding.kind, finding.index) == (ErrorKind.WORKER_LOST, 0)
            assert finding.example.startswith("fuzz_nothing(number=")

    asyncio.run(scenario())


def test_a_chunk_whose_outcomes_cannot_be_recorded_ends_while_its_operations_run(
    host_settings: WorkerHostSettings, tmp_path: Path
) -> None:
    settings = host_settings.model_copy(update={"commit_every_s": 0.05})
    endless = CallOperation(target="farm_targets:note_and_wait_for", args=[str(tmp_path), "runs", "never"])

    async def scenario() -> None:
        async with bench(settings, FailingStore, [CallOperation(target="farm_targets:echo"), endless]) as (farm, store):
            store.go_on.set()
            assert await farm.host.run_attempt((await farm.waiting())[0])
            assert farm.host.kernel.running == 0

    asyncio.run(scenario())


def test_a_job_whose_worker_died_shows_life_and_tells_its_progress_however_long_it_takes(
    host_settings: WorkerHostSettings, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    command = ["sh", "-c", f"echo it runs; while [ ! -e {go} ]; do sleep 0.02; done"]

    async def scenario() -> None:
        async with bench(host_settings, HeldStore, [SubprocessJob(command=command)]) as (farm, store):
            store.go_on.set()
            await farm.die(1)
            attempt = await farm.attempt()
            running = asyncio.create_task(attempt.run())
            deadlines: list[float] = []
            async with aclosing(farm.batch.stream(progress=True)) as stream:
                async for event in stream:
                    if not isinstance(event, Progress):
                        assert (event.ok, event.attempt) == (True, 2)
                        continue
                    assert (event.stdout_tail, event.attempt) == ("it runs\n", 2)
                    assert attempt.lease.deadline is not None
                    deadlines.append(attempt.lease.deadline)
                    if len(deadlines) == 2:
                        go.touch()
            await running
            assert deadlines[0] < deadlines[1]

    asyncio.run(scenario())


def test_jobs_whose_guardian_died_run_again(host_settings: WorkerHostSettings, tmp_path: Path) -> None:
    """It costs the attempt, as the death of the worker would, and no operation its result."""
    note, go = tmp_path / "runs", tmp_path / "go"
    command = ["sh", "-c", f"echo run >> {note}; while [ ! -e {go} ]; do sleep 0.02; done; echo done"]
    settings = host_settings.model_copy(update={"lease_s": 0.3, "renew_every_s": 0.05})

    async def scenario() -> None:
        operations: list[AnyOperation] = [CallOperation(target="farm_targets:echo"), SubprocessJob(command=command)]
        async with bench(settings, HeldStore, operations) as (farm, store):
            store.go_on.set()
            running = asyncio.create_task(farm.host.run_attempt((await farm.waiting())[0]))
            while not note.exists():
                await asyncio.sleep(0.01)
            guardian = guardian_pid()
            assert guardian is not None
            os.kill(guardian, signal.SIGKILL)
            await running
            go.touch()
            while not await farm.waiting():  # until the lease has ended and somebody saw it
                await asyncio.sleep(0.05)
            await farm.run_all()
            outcomes = [outcome async for outcome in farm.batch.stream()]
            assert [(outcome.key, outcome.attempt) for outcome in outcomes] == [("0", 1), ("1", 2)]
            assert outcomes[1].value.stdout == "done\n"

    asyncio.run(scenario())


def test_a_shard_that_takes_longer_than_the_limit_ends_its_operation(host_settings: WorkerHostSettings) -> None:
    operation = FuzzOperation(target="farm_targets:fuzz_small", examples=10_000_000, timeout_s=0.2)

    async def scenario() -> None:
        async with bench(host_settings, HeldStore, [operation]) as (farm, store):
            store.go_on.set()
            await farm.run_all()
            error = await farm.error()
            assert (error.kind, error.message) == (
                ErrorKind.TIMEOUT,
                "a shard took longer than timeout_s, which is 0.2 s",
            )

    asyncio.run(scenario())
