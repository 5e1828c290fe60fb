"""When a worker takes another chunk, without a server."""

from __future__ import annotations

import asyncio

import pytest

from fuzzfarm_shared.keys import AttemptId, Lane
from fuzzfarm_worker.executors.kernel import Kernel
from fuzzfarm_worker.intake import Intake

ONE, TWO = AttemptId("b", 0, "1-a"), AttemptId("b", 1, "1-b")


def rooms(intake: Intake) -> set[Lane]:
    return set(asyncio.run(intake.room(0.01)))


@pytest.fixture
def intake() -> Intake:
    return Intake(Kernel(4), max_children=1)


def test_an_idle_worker_takes_everything(intake: Intake) -> None:
    assert rooms(intake) == {Lane.SLOTS, Lane.FUZZ}


def test_a_chunk_that_still_has_operations_to_start_keeps_others_out(intake: Intake) -> None:
    intake.begin(ONE, Lane.SLOTS)
    assert rooms(intake) == {Lane.FUZZ}


def test_chunks_that_pass_in_milliseconds_are_fetched_one_ahead(intake: Intake) -> None:
    intake.begin(ONE, Lane.SLOTS)
    intake.started_all(ONE)
    intake.begin(TWO, Lane.SLOTS)
    assert Lane.SLOTS in rooms(intake)


def test_fuzz_chunks_are_bounded_by_children(intake: Intake) -> None:
    intake.begin(ONE, Lane.FUZZ)
    assert rooms(intake) == {Lane.SLOTS}
    intake.end(ONE)
    assert rooms(intake) == {Lane.SLOTS, Lane.FUZZ}


def test_a_paused_worker_takes_nothing_for_a_while(intake: Intake) -> None:
    intake.pause(0.05)
    assert rooms(intake) == set()
    assert set(asyncio.run(intake.room(5.0))) == {Lane.SLOTS, Lane.FUZZ}


def test_the_end_of_a_chunk_ends_the_wait(intake: Intake) -> None:
    async def scenario() -> None:
        intake.begin(ONE, Lane.SLOTS)
        intake.begin(TWO, Lane.FUZZ)
        waiting = asyncio.create_task(intake.room(5.0))
        await asyncio.sleep(0)
        intake.end(ONE)
        assert await asyncio.wait_for(waiting, 1.0) == [Lane.SLOTS]

    asyncio.run(scenario())


def test_while_arq_decides_on_an_offer_nothing_more_is_taken(intake: Intake) -> None:
    async def scenario() -> None:
        intake.offer(str(ONE), Lane.FUZZ)
        waiting = asyncio.create_task(intake.room(5.0))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        intake.begin(ONE, Lane.FUZZ)
        assert await asyncio.wait_for(waiting, 1.0) == [Lane.SLOTS]

    asyncio.run(scenario())


def test_under_pressure_a_worker_holds_one_chunk_and_no_more(intake: Intake) -> None:
    async def scenario() -> None:
        intake.press(True)
        assert set(await intake.room(0.01)) == {Lane.SLOTS, Lane.FUZZ}  # an idle one always takes one
        intake.offer(str(ONE), Lane.SLOTS)
        assert await intake.room(0.01) == []
        intake.begin(ONE, Lane.SLOTS)
        intake.started_all(ONE)
        assert await intake.room(0.01) == []
        intake.end(ONE)
        assert set(await intake.room(0.01)) == {Lane.SLOTS, Lane.FUZZ}

    asyncio.run(scenario())


def test_a_worker_that_leaves_takes_nothing_and_ends_its_pop(intake: Intake) -> None:
    async def scenario() -> None:
        closing = asyncio.create_task(intake.other_room([Lane.SLOTS, Lane.FUZZ]))
        await asyncio.sleep(0)
        intake.close()
        await asyncio.wait_for(closing, 1.0)
        assert await intake.room(0.01) == []

    asyncio.run(scenario())


def test_the_end_of_pressure_ends_the_wait(intake: Intake) -> None:
    async def scenario() -> None:
        intake.press(True)
        intake.begin(ONE, Lane.FUZZ)
        waiting = asyncio.create_task(intake.room(5.0))
        await asyncio.sleep(0)
        intake.press(False)
        assert await asyncio.wait_for(waiting, 1.0) == [Lane.SLOTS]

    asyncio.run(scenario())


def test_the_beginning_of_pressure_ends_a_pop_of_a_busy_worker(intake: Intake) -> None:
    async def scenario() -> None:
        intake.begin(ONE, Lane.FUZZ)
        closing = asyncio.create_task(intake.other_room([Lane.SLOTS]))
        await asyncio.sleep(0)
        intake.press(True)
        await asyncio.wait_for(closing, 1.0)

    asyncio.run(scenario())
