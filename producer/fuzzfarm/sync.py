"""The blocking facade for scripts and notebooks: the same names, without `await`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from fuzzfarm.batch import Batch
from fuzzfarm.farm import Farm
from fuzzfarm.feed import Operations
from fuzzfarm.fuzz_status import FuzzStatus
from fuzzfarm.streams import LiveStream, OutcomeStream
from fuzzfarm_shared.outcomes import BatchAggregate, BatchStatus, Finding, Outcome
from fuzzfarm_shared.progress import Progress
from fuzzfarm_shared.reports import QueueReport, WorkerReport
from fuzzfarm_shared.schedule import Priority

T = TypeVar("T")


class SyncFarm:
    """A `Farm` whose methods block; it runs an event loop in a thread of its own while the context is open."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fuzzfarm-sync", daemon=True)

    @classmethod
    def connect(cls, url: str | None = None, **settings: Any) -> Self:
        """As `Farm.connect`."""
        return cls(Farm.connect(url, **settings))

    @classmethod
    def embedded(cls, workers: int = 1, **worker_settings: Any) -> Self:
        """As `Farm.embedded`."""
        return cls(Farm.embedded(workers, **worker_settings))

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.run(self._farm.__aenter__())
        except BaseException:
            self._stop_loop()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.run(self._farm.__aexit__(exc_type, exc, traceback))
        finally:
            self._stop_loop()

    @property
    def is_open(self) -> bool:
        """Whether the context is open."""
        return self._thread.is_alive()

    def submit(
        self,
        operations: Operations,
        key: str | None = None,
        *,
        wait: bool = True,
        priority: Priority | str = Priority.NORMAL,
        deadline_s: float | None = None,
    ) -> SyncBatch:
        """As `Farm.submit`; a plain iterable is read in the thread of the event loop."""
        submitting = self._farm.submit(operations, key, wait=wait, priority=priority, deadline_s=deadline_s)
        return SyncBatch(self, self.run(submitting))

    def batch(self, key: str) -> SyncBatch:
        """As `Farm.batch`."""
        return SyncBatch(self, self._farm.batch(key))

    def batches(self, limit: int = 100) -> list[BatchStatus]:
        """As `Farm.batches`."""
        return self.run(self._farm.batches(limit))

    def workers(self) -> list[WorkerReport]:
        """As `Farm.workers`."""
        return self.run(self._farm.workers())

    def queue(self) -> QueueReport:
        """As `Farm.queue`."""
        return self.run(self._farm.queue())

    def findings(self, target: str | None = None) -> list[Finding]:
        """As `Farm.findings`."""
        return self.run(self._farm.findings(target))

    def findings_named(self, beginning: str) -> list[Finding]:
        """As `Farm.findings_named`."""
        return self.run(self._farm.findings_named(beginning))

    def forget(self, finding: Finding) -> bool:
        """As `Farm.forget`."""
        return self.run(self._farm.forget(finding))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine of this farm; KeyboardInterrupt here cancels it.

        Raises:
            RuntimeError: outside the context, where no event loop runs.
        """
        if not self.is_open:
            coroutine.close()
            raise RuntimeError("a SyncFarm works only inside its context: with SyncFarm.connect(...) as farm: ...")
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def _stop_loop(self) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncBatch:
    """A `Batch` whose methods block."""

    def __init__(self, farm: SyncFarm, batch: Batch) -> None:
        self._farm = farm
        self._batch = batch

    def __repr__(self) -> str:
        return f"<SyncBatch {self.key!r}>"

    @property
    def key(self) -> str:
        """The batch's key."""
        return self._batch.key

    def status(self) -> BatchStatus:
        """As `Batch.status`."""
        return self._farm.run(self._batch.status())

    @overload
    def stream(self, cursor: str | None = None, *, progress: Literal[False] = False) -> Iterator[Outcome]: ...
    @overload
    def stream(self, cursor: str | None = None, *, progress: Literal[True]) -> Iterator[Outcome | Progress]: ...
    def stream(self, cursor: str | None = None, *, progress: bool = False) -> Iterator[Outcome | Progress]:
        """As `Batch.stream`."""
        stream: OutcomeStream | LiveStream
        stream = self._batch.stream(cursor, progress=True) if progress else self._batch.stream(cursor)
        try:
            while (some := self._farm.run(stream.take())) is not None:
                yield from some
        finally:
            if self._farm.is_open:  # otherwise the end of the context has closed it
                self._farm.run(stream.aclose())

    def wait(self, timeout_s: float | None = None) -> BatchAggregate:
        """As `Batch.wait`."""
        return self._farm.run(self._batch.wait(timeout_s))

    def results(self) -> BatchAggregate:
        """As `Batch.results`."""
        return self._farm.run(self._batch.results())

    def fuzz_status(self) -> FuzzStatus:
        """As `Batch.fuzz_status`."""
        return self._farm.run(self._batch.fuzz_status())

    def cancel(self) -> int:
        """As `Batch.cancel`."""
        return self._farm.run(self._batch.cancel())
