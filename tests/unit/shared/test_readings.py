"""What can be read of batches, on a server in memory: the readings that need no script."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis

from fuzzfarm_shared.errors import BatchNotFoundError
from fuzzfarm_shared.keys import Keys, Part
from fuzzfarm_shared.outcomes import BatchState
from fuzzfarm_shared.schedule import Priority
from fuzzfarm_shared.settings import FarmSettings
from fuzzfarm_shared.store import ReadingStore, Server

KEYS = Keys("ff")
COUNTERS = {
    "submit": "s",
    "total": 10,
    "succeeded": 4,
    "failed": 2,
    "cancelled": 1,
    "sealed": 1,
    "created": 5000,
    "priority": "low",
}


def readings(client: FakeAsyncRedis) -> ReadingStore:
    settings = FarmSettings()
    return ReadingStore(Server(client, settings), settings.signer)


async def write(client: FakeAsyncRedis, batch: str, created: int, **counters: Any) -> None:
    await client.hset(KEYS.batch(batch, Part.META), mapping={**COUNTERS, "created": created, **counters})
    await client.zadd(KEYS.batches, {batch: created})


@pytest.mark.parametrize(
    ("counters", "state", "done"),
    [
        ({"sealed": 0}, BatchState.SUBMITTING, False),
        ({}, BatchState.RUNNING, False),
        ({"succeeded": 7, "finished": 9000}, BatchState.DONE, True),
        ({"stop": "cancelled"}, BatchState.CANCELLED, False),
        ({"stop": "deadline"}, BatchState.RUNNING, False),
        ({"stop": "cancelled", "cancelled": 4, "finished": 9000}, BatchState.CANCELLED, True),
    ],
)
def test_the_state_of_a_batch_follows_from_its_counters(
    counters: dict[str, Any], state: BatchState, done: bool
) -> None:
    async def scenario() -> None:
        client = FakeAsyncRedis()
        await write(client, "b", 5000, **counters)
        status = await readings(client).status("b")
        assert (status.state, status.done) == (state, done)
        assert status.total == status.succeeded + status.failed + status.cancelled + status.pending
        assert (status.created_at, status.priority, status.deadline_at) == (5.0, Priority.LOW, None)

    asyncio.run(scenario())


def test_batches_are_listed_newest_first_and_expired_ones_are_forgotten() -> None:
    async def scenario() -> None:
        client = FakeAsyncRedis()
        for created, batch in enumerate(["oldest", "expired", "newest"]):
            await write(client, batch, created)
        await client.delete(KEYS.batch("expired", Part.META))
        assert [status.key for status in await readings(client).batches(10)] == ["newest", "oldest"]
        assert await client.zrange(KEYS.batches, 0, -1) == [b"oldest", b"newest"]

    asyncio.run(scenario())


def test_a_batch_that_is_not_there_is_an_error_that_names_it() -> None:
    async def scenario() -> None:
        with pytest.raises(BatchNotFoundError, match="there is no batch 'gone'"):
            await readings(FakeAsyncRedis()).status("gone")

    asyncio.run(scenario())
