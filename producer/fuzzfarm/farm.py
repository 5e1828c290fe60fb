"""The client of a farm: connect to one, or start one of your own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis

from fuzzfarm.batch import Batch, cancel_unwanted
from fuzzfarm.embedded import EmbeddedHost
from fuzzfarm.feed import Operations, PayloadFeed
from fuzzfarm.submission import Submission
from fuzzfarm_shared.connection import check_server, connect
from fuzzfarm_shared.errors import DuplicateKeyError
from fuzzfarm_shared.keys import check_batch_key, new_batch_key
from fuzzfarm_shared.outcomes import BatchStatus, Finding
from fuzzfarm_shared.reports import QueueReport, WorkerReport
from fuzzfarm_shared.schedule import PLAIN, Priority, Schedule
from fuzzfarm_shared.settings import ProducerSettings
from fuzzfarm_shared.store import FarmReadings, FindingStore, ReadingStore, Server, SubmissionStore


class Farm:
    """A farm of workers behind one server; an async context manager, made by `connect` or `embedded`."""

    def __init__(self, settings: ProducerSettings, host: EmbeddedHost | None = None) -> None:
        self.settings = settings
        self._host = host
        self._stack = AsyncExitStack()
        self._server_or_none: Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def connect(cls, url: str | None = None, **settings: Any) -> Self:
        """Return a client of the farm at `url`.

        Args:
            url: redis://, rediss:// or unix:// address of the server; None: `FUZZFARM_REDIS_URL`.
            settings: any field of `ProducerSettings`, instead of its environment variable.

        Raises:
            SettingsError: for a setting that cannot work.

        Entering the context raises FarmUnreachableError (or one of its subclasses) when the server does not answer.
        """
        return cls(ProducerSettings.load(redis_url=url, **settings))

    @classmethod
    def embedded(cls, workers: int = 1, **worker_settings: Any) -> Self:
        """Return a farm of its own: a server on a private unix socket and `workers` worker processes on this host.

        Args:
            workers: worker processes to start.
            worker_settings: any field of `WorkerHostSettings`; everything is allowed to run, because only this user
                can reach the server.

        Leaving the context stops server and workers; so does the death of this process.
        """
        host = EmbeddedHost(workers, worker_settings)
        return cls(ProducerSettings.load(**host.shared_settings), host)

    @property
    def url(self) -> str:
        """The server's address without its password."""
        return self.settings.safe_url

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._host is not None:
                await stack.enter_async_context(self._host)
            client: Redis = connect(self.settings)
            stack.push_async_callback(client.aclose)
            await check_server(client, self.settings)
            self._server_or_none = Server(client, self.settings)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._server_or_none = None
        await self._stack.aclose()

    async def submit(
        self,
        operations: Operations,
        key: str | None = None,
        *,
        wait: bool = True,
        priority: Priority | str = Priority.NORMAL,
        deadline_s: float | None = None,
    ) -> Batch:
        """Submit a keyed set of operations and return its batch.

        Args:
            operations: an iterable or async iterable of operations and groups, read lazily, or one group. Each
                operation without a key gets its position as its key.
            key: the batch's key; None makes a new one. Submitting the same content under the same key again joins
                the batch, and finishes a submit that was interrupted.
            wait: wait while the queue is full; otherwise raise `QueueFullError`.
            priority: "high", "normal" or "low": workers take the chunks of more urgent batches first, and every tenth
                time the less urgent ones.
            deadline_s: seconds from now, to the second, after which what has no outcome gets the error `deadline`, and
                what runs is stopped; None: never. Priority and deadline are those of the first submit of a batch.

        Raises:
            InvalidOperationError: for what cannot be an operation, a key, a priority or a deadline; for a sequence
                before anything is sent.
            DuplicateKeyError: when a key comes twice; a batch that this submit began is cancelled then.
            BatchConflictError: when the key exists with other content.
            UnsupportedValueError: for an argument that cannot travel.
            FarmUnreachableError: when the server stays away; what was accepted is kept.

        Cancelling leaves the batch unfinished; submitting it again goes on behind what was accepted.
        """
        schedule = Schedule.of(priority, deadline_s)
        batch, submission = self.prepare(operations, key, wait=wait, schedule=schedule)
        try:
            await submission.run(may_exist=key is not None)
        except Exception as exc:
            # Nobody could finish a batch whose key nobody knows, or one that has a key twice. One that was there before
            # is another submit's.
            if submission.created and (key is None or isinstance(exc, DuplicateKeyError)):
                await cancel_unwanted(batch)
            raise
        return batch

    def prepare(
        self,
        operations: Operations | PayloadFeed,
        key: str | None = None,
        *,
        wait: bool = True,
        schedule: Schedule = PLAIN,
    ) -> tuple[Batch, Submission]:
        """Return a batch and what submits it, for callers that read outcomes meanwhile; see `submit`."""
        batch = Batch(new_batch_key() if key is None else check_batch_key(key), self._server, self.settings.signer)
        store = SubmissionStore(self._server, schedule)
        return batch, Submission(store, self.settings, batch.key, operations, wait=wait)

    def own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that needs this farm; leaving the farm cancels it first, and waits for its end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def batch(self, key: str) -> Batch:
        """Return the batch `key`, submitted by whomever; nothing is asked of the server yet.

        Raises:
            InvalidOperationError: for what cannot be a batch key.
        """
        return Batch(check_batch_key(key), self._server, self.settings.signer)

    async def batches(self, limit: int = 100) -> list[BatchStatus]:
        """Return the status of the newest batches, newest first."""
        return await ReadingStore(self._server, self.settings.signer).batches(limit)

    async def workers(self) -> list[WorkerReport]:
        """Return what each live worker says of itself, by name."""
        return await FarmReadings(self._server).workers()

    async def queue(self) -> QueueReport:
        """Return how many chunks wait and run, and how long the oldest of them has waited."""
        return await FarmReadings(self._server).queue()

    async def findings(self, target: str | None = None) -> list[Finding]:
        """Return the findings of one target, or of all, from whatever batch, those seen last first.

        Args:
            target: "module:function"; None: all targets of the farm.

        A finding is kept for `FUZZFARM_FINDINGS_TTL_S` after it was last seen, and at most 1,000 of a target.

        Raises:
            FarmUnreachableError: when the server stays away.
        """
        return await self._findings.read(target)

    async def findings_named(self, beginning: str) -> list[Finding]:
        """Return the finding with this id, or those whose id begins so; raises as `findings`."""
        return await self._findings.named(beginning)

    async def forget(self, finding: Finding) -> bool:
        """Forget a finding and return whether it was known; seen again, it is a new one. Raises as `findings`."""
        return await self._findings.forget(finding)

    @property
    def _findings(self) -> FindingStore:
        return FindingStore(self._server, self.settings.signer)

    @property
    def _server(self) -> Server:
        if self._server_or_none is None:
            raise RuntimeError("the farm is not connected: use it inside `async with Farm.connect(...) as farm:`")
        return self._server_or_none
