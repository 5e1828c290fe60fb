"""Gathering submitted calls into batches, without a server."""

from __future__ import annotations

import asyncio

from fuzzfarm.gathering import CallQueue, Gathering
from fuzzfarm_shared.futures import AsyncFuture
from fuzzfarm_shared.operations import CallOperation
from fuzzfarm_shared.payloads import PayloadBuilder


def test_the_end_of_one_batch_does_not_end_the_next() -> None:
    async def scenario() -> None:
        queue, builder = CallQueue(), PayloadBuilder(0)
        first, following = (Gathering(queue, lambda: None) for _ in range(2))
        filling = asyncio.create_task(following.fill(builder, 10))
        await asyncio.sleep(0)
        first.close()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not following.ended
        queue.append((AsyncFuture(), CallOperation(target="m:f"), [1], None))
        assert not await filling
        assert len(builder) == 1

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_call_that_is_taken_back_at_once_ends_no_batch() -> None:
    async def scenario() -> None:
        queue = CallQueue()
        gathering = Gathering(queue, lambda: None)
        filling = asyncio.create_task(gathering.fill(PayloadBuilder(0), 10))
        await asyncio.sleep(0)
        future = AsyncFuture[None]()
        queue.append((future, CallOperation(target="m:f"), [], None))
        assert queue.remove(future)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not gathering.ended
        queue.close()
        assert await filling

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_it_ends_when_it_is_closed_while_it_waits() -> None:
    async def scenario() -> None:
        gathering = Gathering(CallQueue(), lambda: None)
        filling = asyncio.create_task(gathering.fill(PayloadBuilder(0), 10))
        await asyncio.sleep(0)
        gathering.close()
        assert await filling

    asyncio.run(asyncio.wait_for(scenario(), 10))
