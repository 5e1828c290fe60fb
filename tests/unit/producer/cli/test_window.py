"""A window lets in as many operations as may be under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fuzzfarm.cli.window import Window
from fuzzfarm_shared.operations import SubprocessJob
from fuzzfarm_shared.payloads import PayloadBuilder

JOBS = [SubprocessJob(key=f"k{number}", command=["true"]) for number in range(100)]


async def as_they_come() -> AsyncIterator[SubprocessJob]:
    for job in JOBS:
        yield job


async def filled(window: Window, *, patient: bool = False) -> int:
    """How many operations the next payload has."""
    builder = PayloadBuilder(0)
    async with asyncio.timeout(10):
        await window.fill(builder, 64, patient=patient)
    return len(builder)


@pytest.mark.parametrize("source", [lambda: iter(JOBS), as_they_come], ids=["sync", "async"])
def test_one_more_is_let_in_for_each_outcome(source):
    async def scenario() -> None:
        async with Window(source(), 3) as window:
            assert [await filled(window) for _ in range(3)] == [1, 1, 1]
            waiting = asyncio.create_task(filled(window))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not waiting.done()
            window.let_in()
            assert await waiting == 1

    asyncio.run(scenario())


def test_many_travel_in_larger_payloads_which_are_enough_for_several_workers():
    async def scenario() -> None:
        async with Window(iter(JOBS), 64) as window:
            assert [await filled(window) for _ in range(16)] == [4] * 16

    asyncio.run(scenario())


def test_what_was_submitted_before_takes_up_room():
    async def scenario() -> None:
        async with Window(iter(JOBS), 3) as window:
            assert await filled(window, patient=True) == 64
            waiting = asyncio.create_task(filled(window))
            for _ in range(61):
                window.let_in()
                await asyncio.sleep(0)
            assert not waiting.done()
            window.let_in()
            assert await waiting == 1

    asyncio.run(scenario())


def test_without_a_bound_nobody_waits():
    async def scenario() -> None:
        async with Window(iter(JOBS), None) as window:
            assert [await filled(window) for _ in range(2)] == [64, 36]

    asyncio.run(scenario())


def test_a_window_that_is_closed_lets_nothing_in_and_ends_a_wait():
    async def scenario() -> None:
        async with Window(iter(JOBS), 1) as window:
            await filled(window)
            waiting = asyncio.create_task(filled(window))
            await asyncio.sleep(0)
            window.close()
            assert await waiting == 0

    asyncio.run(scenario())
