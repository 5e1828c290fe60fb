"""What is on a farm at one moment: its queue, and what its workers say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from store_harness import StoreHarness, call_payload, fuzz_payload, wait_until

from fuzzfarm_shared.keys import Lane
from fuzzfarm_shared.reports import QueueReport, WorkerReport
from fuzzfarm_shared.store import FarmReadings

Drive = Callable[[Any], None]
APART_S = 0.02
ROUNDED_S = 0.001
"""The server notes times in whole milliseconds."""


def report_of(reported_at: float, name: str = "w") -> WorkerReport:
    return WorkerReport(
        name=name, host="h", pid=7, version="1", python="3", max_concurrency=5, running=2, chunks=1, operations_done=9,
        memory_bytes=1, load=0.5, started_at=reported_at, reported_at=reported_at,
    )  # fmt: skip


async def server_time(store: StoreHarness) -> float:
    seconds, micros = await store.client.time()
    return seconds + micros / 1_000_000


async def wait_apart(store: StoreHarness) -> float:
    """Let the server's clock move on, so that what is queued next is younger; returns its time."""
    since = await server_time(store)

    async def is_apart() -> bool:
        return await server_time(store) >= since + APART_S

    await wait_until(is_apart)
    return since


async def queue(store: StoreHarness) -> QueueReport:
    return await FarmReadings(store.server).queue()


async def oldest_age(store: StoreHarness) -> float:
    age_s = (await queue(store)).age_s
    assert age_s is not None
    return age_s


def test_an_empty_farm_has_nothing_that_waits_or_runs(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        expected = QueueReport(waiting=0, waiting_by_lane={Lane.SLOTS: 0, Lane.FUZZ: 0}, running=0, age_s=None)
        assert await queue(store) == expected
        assert await FarmReadings(store.server).workers() == []

    drive(steps)


def test_waiting_chunks_are_told_by_lane_and_apart_from_those_that_run(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        for index, payload in enumerate([call_payload(0, 2), call_payload(2, 2), fuzz_payload(4, 100)]):
            await store.append(index, payload)
        chunks = {attempt.chunk: attempt for attempt in await store.waiting()}
        for chunk, left in ((0, {Lane.SLOTS: 1, Lane.FUZZ: 1}), (2, {Lane.SLOTS: 1, Lane.FUZZ: 0})):
            await store.take(store.worker(), chunks[chunk])
            seen = await queue(store)
            assert (seen.waiting, seen.waiting_by_lane) == (sum(left.values()), left)
        assert seen.running == 2

    drive(steps)


def test_the_oldest_waiting_chunk_is_that_of_any_lane_until_it_is_claimed(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        before = await server_time(store)
        await store.append(0, fuzz_payload(0, 100))
        (oldest,) = await store.waiting()
        after = await wait_apart(store)
        await store.append(1, call_payload(1, 2))
        waited_s = await oldest_age(store)
        assert APART_S <= waited_s <= await server_time(store) - before + ROUNDED_S
        await store.take(store.worker(), oldest)
        assert await oldest_age(store) <= await server_time(store) - after - APART_S + ROUNDED_S

    drive(steps)


def test_a_chunk_that_is_handed_back_waits_from_then_on(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 2))
        held = await store.take(store.worker())
        since = await wait_apart(store)
        assert await held.store.hand_back_all(held.claim.id, held.done)
        assert await oldest_age(store) <= await server_time(store) - since - APART_S + ROUNDED_S

    drive(steps)


def test_an_attempt_that_was_claimed_a_moment_ago_is_passed_over(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 2))
        (first,) = await store.waiting()
        since = await wait_apart(store)
        await store.append(1, call_payload(2, 2))
        await store.worker().claim(first)  # its id is still on the wake list
        assert await oldest_age(store) <= await server_time(store) - since - APART_S + ROUNDED_S
        (second,) = await store.waiting()
        await store.worker().claim(second)
        assert (await queue(store)).age_s is None

    drive(steps)


def test_a_heartbeat_is_dated_by_the_server_whatever_the_workers_clock_says(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        sent = await server_time(store)
        for name, ahead_s in (("late", -500.0), ("early", 500.0)):
            report = report_of(sent + ahead_s, name)
            await store.worker(name).take_over(report.model_dump_json().encode(), 60.0)
        await wait_apart(store)
        early, late = await FarmReadings(store.server).workers()
        passed_s = await server_time(store) - sent
        assert (early.name, late.name) == ("early", "late")
        for worker, ahead_s in ((early, 500.0), (late, -500.0)):
            assert APART_S / 2 < worker.heartbeat_age_s <= passed_s + ROUNDED_S
            assert ahead_s - passed_s - ROUNDED_S <= worker.clock_ahead_s <= ahead_s + ROUNDED_S

    drive(steps)


def test_the_report_of_an_older_worker_is_read(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        newer = {"memory_free", "heartbeat_age_s", "clock_ahead_s"}
        report = report_of(await server_time(store)).model_dump_json(exclude=newer).encode()
        await store.worker("w").take_over(report, 60.0)
        (worker,) = await FarmReadings(store.server).workers()
        assert (worker.name, worker.memory_free) == ("w", None)

    drive(steps)
