"""A batch of an executor: fed and read at the same time, and cancelled on the farm when it ends early."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fuzzfarm.batch import cancel_unwanted
from fuzzfarm.farm import Farm
from fuzzfarm.feed import PayloadFeed
from fuzzfarm_shared.schedule import Schedule
from fuzzfarm_shared.segments import Segment


class Flow:
    """One batch, from its first operation to its last outcome.

    Args:
        farm: where it runs.
        feed: its operations; none has a key.
        deliver: takes outcomes as they come; an error that it raises ends the batch.
        schedule: of the batch.
    """

    def __init__(self, farm: Farm, feed: PayloadFeed, deliver: Callable[[Segment], None], schedule: Schedule) -> None:
        self._feed = feed
        self._deliver = deliver
        self._batch, self._submission = farm.prepare(feed, schedule=schedule)

    async def run(self) -> None:
        """Submit, and deliver outcomes until the last one.

        Raises what the input, the submission or `deliver` raised, and CancelledError when somebody cancelled the
        batch. Any early end, by an error or by cancelling this, cancels the batch on the farm and waits for that.
        """
        # Tasks of their own, so that stopping them cannot stop this one while it cancels the batch.
        submitting, reading = asyncio.create_task(self._submit()), asyncio.create_task(self._read())
        try:
            await asyncio.wait([reading])
            if submitting.done():
                submitting.result()  # its error comes first: it may be why there is nothing to read
            reading.result()
            self._feed.close()
            await asyncio.wait([submitting])
            submitting.result()
        except (Exception, asyncio.CancelledError):
            await _stop([submitting, reading])
            await cancel_unwanted(self._batch)
            raise
        if self._submission.cancelled:
            raise asyncio.CancelledError("the batch was cancelled")

    async def _read(self) -> None:
        await self._submission.begun.wait()
        async for segment in self._batch.segments():
            self._deliver(segment)

    async def _submit(self) -> None:
        try:
            await self._submission.run(may_exist=False)
        except Exception:
            await cancel_unwanted(self._batch)  # which ends the outcomes, so that `run` comes to this error
            raise
        finally:
            self._submission.begun.set()


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end; their errors have been seen, or no longer matter."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
