"""A batch on the farm, seen from any process that knows its key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Literal, overload

from fuzzfarm.fuzz_status import FuzzStatus, FuzzWatcher
from fuzzfarm.streams import LiveStream, OutcomeStream
from fuzzfarm_shared.errors import BatchNotFoundError, BatchNotSealedError, FarmFullError, FarmUnreachableError
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.outcomes import BatchAggregate, BatchStatus, FuzzResult, OperationError
from fuzzfarm_shared.schedule import StopReason
from fuzzfarm_shared.segments import Segment
from fuzzfarm_shared.settling import cancel_order, settle_waiting
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store import AttemptStore, OutcomeCursor, ReadingStore, Server, TellingStore
from fuzzfarm_shared.store.fuzz_readings import FuzzReadings
from fuzzfarm_shared.store.readings import operations_context

CANCELLER = "canceller"
"""Stands for a worker in the outcomes that `cancel` records itself."""

CANCEL_LEASE_S = 3.0
"""If a canceller dies with a chunk, a worker gets it after this."""

CANCEL_WAIT_S = 5.0
"""How long `cancel` waits for workers to stop what runs."""

UNWANTED_S = 10.0
"""How long cancelling may take where an error is to be told: twice what running operations get to stop, so that a lost
server does not hold it up."""

log = get_logger(__name__)


class Batch:
    """A keyed set of operations and its outcomes; made by `Farm.submit` and `Farm.batch`."""

    def __init__(self, key: str, server: Server, signer: Signer) -> None:
        self.key = key
        self._server = server
        self._signer = signer
        self._readings = ReadingStore(server, signer)

    def __repr__(self) -> str:
        return f"<Batch {self.key!r}>"

    async def status(self) -> BatchStatus:
        """Return one consistent reading of the batch's counters.

        Raises:
            BatchNotFoundError: when there is no such batch, or it has expired.
            FarmUnreachableError: when the server stays away.
        """
        return await self._readings.status(self.key)

    @overload
    def stream(self, cursor: str | None = None, *, progress: Literal[False] = False) -> OutcomeStream: ...
    @overload
    def stream(self, cursor: str | None = None, *, progress: Literal[True]) -> LiveStream: ...
    def stream(self, cursor: str | None = None, *, progress: bool = False) -> OutcomeStream | LiveStream:
        """Return all outcomes in the order of their completion, waiting for those to come.

        Args:
            cursor: what `OutcomeStream.cursor` said earlier, here or in another process; None: from the beginning.
            progress: yield, between outcomes, a `Progress` of each subprocess job that runs for longer than a second,
                about every second. It may be missing or late, and never holds up an outcome.

        The stream ends after the last outcome of the batch, survives a lost connection, and raises as `status` does.
        Leaving it early costs nothing; after a wait that was cancelled, by a time limit, it goes on where it was.
        """
        start = OutcomeCursor.parse(cursor) if cursor else OutcomeCursor()
        if progress:
            return LiveStream(self._readings, TellingStore(self._server, self._signer), self.key, start)
        return OutcomeStream(self._readings, self.key, start)

    async def segments(self) -> AsyncGenerator[Segment, None]:
        """Yield outcomes as `stream` does, but by commit and in columns, for readers that count time per outcome."""
        async for _, segment in self._readings.segments(self.key, OutcomeCursor().entry):
            yield segment

    async def wait(self, timeout_s: float | None = None) -> BatchAggregate:
        """Return all results and errors by key, once every operation has its outcome.

        Args:
            timeout_s: seconds to wait at most; None: no limit.

        Raises:
            TimeoutError: when the batch takes longer; it goes on running.
            BatchNotFoundError: when there is no such batch, or it expires meanwhile.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._aggregate()
        except TimeoutError:
            status = await self.status()
            submitting = "" if status.sealed else ", still being submitted"
            raise TimeoutError(
                f"batch {self.key!r} is not done after {timeout_s} s and goes on running "
                f"({status.completed:,} of {status.total:,} operations{submitting})"
            ) from None

    async def results(self) -> BatchAggregate:
        """Return the results and errors recorded so far, without waiting.

        Raises:
            BatchNotSealedError: when the batch is not wholly submitted yet.
            BatchNotFoundError: when there is no such batch, or it has expired.
        """
        status = await self.status()
        if not status.sealed:
            raise BatchNotSealedError(self.key, status.total)
        return await self._aggregate(status.completed)

    async def shard_results(self, place: int, start: int = 0) -> list[FuzzResult]:
        """Return what shards of a fuzz operation have recorded while it still runs, findings included.

        Args:
            place: of its payload in the batch: in a batch of fuzz operations only, its position.
            start: results to leave out, those of earlier calls.

        Raises:
            BatchNotFoundError: when there is no such batch, or it has expired.
        """
        return await self._readings.shard_results(self.key, place, start)

    async def fuzz_watcher(self) -> FuzzWatcher:
        """Return a reader of the live numbers of this batch's fuzz operations, for many readings.

        Raises:
            BatchNotFoundError: when there is no such batch, or it has expired.
            FarmUnreachableError: when the server stays away.
        """
        submit_id = await self._readings.submit_id(self.key)
        return FuzzWatcher(FuzzReadings(self._server, self._signer, self.key, submit_id), self.key)

    async def fuzz_status(self) -> FuzzStatus:
        """Return what each fuzz operation has done so far, and all of them together; raises as `fuzz_watcher`."""
        watcher = await self.fuzz_watcher()
        await watcher.read_all()
        recorded = await self._aggregate((await self.status()).completed)
        for key, value in recorded.results.items():
            watcher.note(key, value, None)
        for key, error in recorded.errors.items():
            watcher.note(key, None, error)
        return watcher.status()

    async def cancel(self) -> int:
        """Cancel what has no outcome yet and return how many operations were cancelled in all.

        Waiting operations are recorded as cancelled at once; running ones when their worker has killed them, which
        is waited for up to 5 s. Cancelling a batch that is done changes nothing.

        Raises:
            SignatureError: when the batch was signed with a key that this side does not have; nothing is changed.
            BatchNotFoundError: when there is no such batch, or it has expired.
        """
        attempts = AttemptStore(self._server, CANCELLER, CANCEL_LEASE_S)
        deadline = asyncio.get_running_loop().time() + CANCEL_WAIT_S
        submit_id = await self._readings.submit_id(self.key)
        await self._check_key(submit_id)
        order = cancel_order(self.key, submit_id, self._signer)
        while True:
            seen = await self._readings.last_entry(self.key)
            waiting = await attempts.cancel(self.key, order)
            if waiting is None:
                raise BatchNotFoundError(self.key)
            await settle_waiting(attempts, waiting, StopReason.CANCELLED, self._signer, CANCELLER)
            status = await self.status()
            if status.done or (not waiting and asyncio.get_running_loop().time() > deadline):
                return status.cancelled
            if not waiting:
                await self._readings.wait_for_change(self.key, seen, deadline - asyncio.get_running_loop().time())

    async def _check_key(self, submit_id: str) -> None:
        """Raise SignatureError when workers would not accept our orders, nor readers our outcomes."""
        found = await self._readings.some_payload(self.key)
        if found is not None:
            number, envelope = found
            self._signer.open(envelope, operations_context(self.key, submit_id, number))

    async def _aggregate(self, enough: int | None = None) -> BatchAggregate:
        """Collect outcomes to the end of the batch, or until there are `enough`."""
        results: dict[str, Any] = {}
        errors: dict[str, OperationError] = {}
        if enough != 0:
            async for _, segment in self._readings.segments(self.key, OutcomeCursor().entry):
                _collect(segment, results, errors)
                if enough is not None and len(results) + len(errors) >= enough:
                    break
        # Built without validation: that would copy a million results once more.
        return BatchAggregate.model_construct(key=self.key, status=await self.status(), results=results, errors=errors)


async def cancel_unwanted(batch: Batch) -> None:
    """Cancel a batch that ends early, on the way of an error; that it could not be cancelled is only logged."""
    try:
        # Not found: it ended before the server had accepted anything.
        with suppress(BatchNotFoundError):
            async with asyncio.timeout(UNWANTED_S):
                await batch.cancel()
    except (FarmUnreachableError, FarmFullError, TimeoutError) as exc:
        log.warning("a batch that is no longer wanted could not be cancelled", batch=batch.key, error=exc)


def _collect(segment: Segment, results: dict[str, Any], errors: dict[str, OperationError]) -> None:
    keys = segment.operation_keys()
    if not segment.errors:
        results.update(zip(keys, segment.values, strict=True))
        return
    for place, (key, value) in enumerate(zip(keys, segment.values, strict=True)):
        if place in segment.errors:
            errors[key] = segment.errors[place]
        else:
            results[key] = value
