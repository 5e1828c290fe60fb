"""Following a batch to its end: every outcome once, and progress meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from fuzzfarm.batch import Batch
from fuzzfarm.cli.jobs import RunningJobs
from fuzzfarm.cli.meter import Meter, Reading
from fuzzfarm.farm import Farm
from fuzzfarm.fuzz_status import FuzzStatus, FuzzWatcher
from fuzzfarm_shared.outcomes import BatchStatus, Outcome
from fuzzfarm_shared.progress import Progress

READ_EVERY_S = 0.25
"""Often enough to look alive; four small requests a second."""

WORKERS_EVERY = 8
"""Workers are counted at every so manieth reading: they change rarely."""


class Follower:
    """Reads one batch until it has ended.

    Args:
        farm: where the batch is.
        batch: the batch.
        meter: shows progress.
        examples_total: examples that were asked for, where that is known.
        judge: gets the numbers of fuzz operations at each reading; what it raises ends all, in an exception group.
        jobs: show the subprocess jobs that run, too.
    """

    def __init__(
        self,
        farm: Farm,
        batch: Batch,
        meter: Meter,
        examples_total: int | None = None,
        judge: Callable[[FuzzStatus], None] | None = None,
        jobs: bool = False,
    ) -> None:
        self._farm = farm
        self._batch = batch
        self._meter = meter
        self._examples_total = examples_total
        self._judge = judge
        self.fuzzed: FuzzWatcher | None = None
        """Reads the fuzz operations of the batch, from `follow` on."""
        self._jobs = RunningJobs() if jobs else None

    async def follow(self, take: Callable[[Outcome], None], cursor: str | None = None) -> BatchStatus:
        """Give every outcome to `take` in the order of completion, and return the last status.

        Args:
            take: is called once for each outcome.
            cursor: start behind this place; None: from the beginning.

        Raises:
            BatchNotFoundError: when there is no such batch.
            FarmUnreachableError: when the server stays away.
        """
        self.fuzzed = await self._batch.fuzz_watcher()
        ended = asyncio.Event()
        with self._meter:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(ended, self.fuzzed))
                try:
                    async for outcome in self._outcomes(cursor):
                        self.fuzzed.note(outcome.key, outcome.value, outcome.error)
                        take(outcome)
                finally:
                    ended.set()
        return await self._batch.status()

    async def _outcomes(self, cursor: str | None) -> AsyncGenerator[Outcome, None]:
        if self._jobs is None:
            async for outcome in self._batch.stream(cursor):
                yield outcome
            return
        async for event in self._batch.stream(cursor, progress=True):
            if isinstance(event, Progress):
                self._jobs.note(event)
            else:
                self._jobs.end(event.key)
                yield event

    async def _read(self, ended: asyncio.Event, fuzzed: FuzzWatcher) -> None:
        """Show readings until `ended`, and not until cancelled: a connection that is being made can swallow that."""
        workers = turn = 0
        while not ended.is_set():
            if turn % WORKERS_EVERY == 0 or not workers:  # those of a farm of our own are just starting
                workers = len(await self._farm.workers())
            turn += 1
            status = await self._batch.status()
            fuzz = await fuzzed.read() if status.examples_done else None
            jobs = () if self._jobs is None else self._jobs.now()
            self._meter.show(Reading(status, workers, self._examples_total, jobs, fuzz))
            if fuzz is not None and self._judge is not None:
                self._judge(fuzz)
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_EVERY_S):
                    await ended.wait()
