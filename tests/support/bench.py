"""A batch, and a worker without arq, whose attempts a test runs itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fuzzfarm import Batch, Farm, OperationError
from fuzzfarm_shared.keys import AttemptId, AttemptPhase
from fuzzfarm_shared.operations import AnyOperation
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_shared.store import AttemptStore, Claim
from fuzzfarm_worker.chunks import Attempt, work_of
from fuzzfarm_worker.host import WorkerHost

WAIT_S = 30.0


class HeldStore(AttemptStore):
    """Holds back the first hand-back, and the first commit, until it is told to go on; that commit then fails."""

    asked: asyncio.Event
    go_on: asyncio.Event

    async def hand_back_rest(self, *args: Any, **options: Any) -> bool:
        if not self.go_on.is_set():
            self.asked.set()
            await self.go_on.wait()
        return await super().hand_back_rest(*args, **options)


class Bench:
    """A batch, and a worker without arq, whose attempts the test runs itself."""

    def __init__(self, host: WorkerHost, farm: Farm, batch: Batch) -> None:
        self.host = host
        self.farm = farm
        self.batch = batch

    async def waiting(self) -> list[str]:
        return [raw.decode() for raw in await self.host.server.call("ZRANGE", self.host.settings.keys.queue, 0, -1)]

    async def attempt(self) -> Attempt:
        claim = await self.host.store.claim(AttemptId.parse((await self.waiting())[0]))
        assert isinstance(claim, Claim)
        return Attempt(self.host.station, claim, work_of)

    async def die(
        self,
        times: int,
        ran: range | None = None,
        phase: AttemptPhase | None = AttemptPhase.RUNNING,
        at_once: int | None = None,
    ) -> None:
        """Let holders of the waiting chunk die in this phase; recorders tell what `ran`, if that is given.

        They run `at_once` operations, or as many as the worker of this bench.
        """
        slots = self.host.settings.max_concurrency if at_once is None else at_once
        dying = AttemptStore(self.host.server, "dying", 0.001, slots)
        for _ in range(times):
            claim = await dying.claim(AttemptId.parse((await self.waiting())[0]))
            assert isinstance(claim, Claim)
            if phase is not None:
                assert await dying.enter(claim.id, phase)
            if ran is not None:
                assert await dying.suspect(claim.id, ran.start, ran.stop - 1)
            chunk = f"{claim.id.batch}/{claim.id.chunk}@"
            while not any(name.startswith(chunk) for name in await self.waiting()):
                await dying.take_over(b"", 1.0)

    async def error(self) -> OperationError:
        return (await self.batch.wait(WAIT_S)).errors["0"]

    async def run_all(self) -> None:
        """Run what waits until nothing does."""
        while waiting := await self.waiting():
            await self.host.run_attempt(waiting[0])


@asynccontextmanager
async def bench(
    settings: WorkerHostSettings, store: type[HeldStore], operations: list[AnyOperation]
) -> AsyncIterator[tuple[Bench, Any]]:
    reach = {"url": settings.redis_url, "namespace": settings.namespace, "signing_key": settings.signing_key}
    host = WorkerHost(settings)
    held = store(host.server, host.name, settings.lease_s, settings.max_concurrency)
    held.asked, held.go_on = asyncio.Event(), asyncio.Event()
    host.store = held
    async with (
        asyncio.timeout(WAIT_S),
        Farm.connect(**reach) as farm,
    ):
        await host.start()
        try:
            yield Bench(host, farm, await farm.submit(operations)), held
        finally:
            await host.stop()
