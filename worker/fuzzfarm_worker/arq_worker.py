"""Everything that knows arq's worker: its settings, and the pool through which it reads our queue.

arq polls a sorted set and starts whatever it finds. Our pool answers that poll only when the worker has room for a
chunk, and with just the one job that a blocking pop of the wake list gave it, so that a job wakes one idle worker
within milliseconds and an idle worker costs the server next to nothing. See `tests/integration/worker/test_arq.py`
for a test of each fact that this relies on.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import Any

from arq.connections import ArqRedis, RedisSettings
from arq.worker import RetryJob, Worker, func
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, OutOfMemoryError, TimeoutError  # noqa: A004

from fuzzfarm_shared.arq_queue import FUNCTION, IN_PROGRESS_PREFIX, deserialize_job, serialize_job
from fuzzfarm_shared.connection import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, Patience, connection_options, longest_block_s
from fuzzfarm_shared.keys import Lane
from fuzzfarm_shared.schedule import Priority
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_worker.host import WorkerHost
from fuzzfarm_worker.leaving import Departure

FOREVER = 10**9
"""Tries that arq allows a job: our leases decide when to give up, never arq."""

SPARE_JOBS = 16
"""arq's limit of jobs lies this far above ours: at its own limit arq polls without pause."""

BLOCK_S = 2.0
"""How long an idle worker waits in one pop; two requests in four seconds."""

FLOOR = 10
"""Of so many chunks one is of low priority and one of normal priority, however many more urgent ones wait."""

LOW_FIRST = (Priority.LOW, Priority.NORMAL, Priority.HIGH)
NORMAL_FIRST = (Priority.NORMAL, Priority.HIGH, Priority.LOW)

POKE_TTL_S = 60
"""How long a poke that came too late stays; the next pop takes it."""

PUSH = """
redis.call(ARGV[1], KEYS[1], ARGV[2])
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
"""
"""Pushes to a list that may be empty, and so without a time to live, in one step: no key stays for ever."""

LONGEST_START_S = 1.0
"""arq starts a job that it was given within milliseconds, if the server answers."""

JOB = Worker.run_job.__qualname__
"""Of the tasks that arq starts for jobs."""

HEALTH_CHECK_S = 10
"""How old the sign of life that `arq --check` reads may be."""


def worker_settings(settings: WorkerHostSettings | None = None, **overrides: Any) -> dict[str, Any]:
    """Return settings for `arq.worker.create_worker`, or for the `arq` command.

    Args:
        settings: of this worker; None reads the environment.
        overrides: settings of arq to use instead of ours. (Do not subclass a settings class: arq reads only the
            class's own attributes.)
    """
    settings = settings or WorkerHostSettings.load()
    host = WorkerHost(settings)
    return {
        "functions": [func(_run_chunk, name=FUNCTION, timeout=None, max_tries=FOREVER, keep_result=0)],
        "queue_name": settings.keys.queue,
        "redis_pool": _pool(settings, host),
        "redis_settings": redis_settings(settings),
        "ctx": {"host": host, "listens": "handle_signals" not in overrides},
        # arq would cancel each job wherever it is, between a claim and the server's answer too; see `_end`.
        "handle_signals": False,
        "on_startup": _start,
        "on_shutdown": _stop,
        "max_jobs": settings.max_concurrency + settings.max_children + SPARE_JOBS,
        "job_timeout": None,
        "poll_delay": 0,
        "max_tries": FOREVER,
        "keep_result": 0,
        "log_results": False,
        "health_check_interval": HEALTH_CHECK_S,
        "job_serializer": serialize_job,
        "job_deserializer": deserialize_job,
        **overrides,
    }


def redis_settings(settings: WorkerHostSettings) -> RedisSettings:
    """Return the server in arq's own terms, which `arq --check` reads."""
    arq_settings = RedisSettings.from_dsn(settings.redis_url)
    arq_settings.ssl_check_hostname = arq_settings.ssl
    return arq_settings


async def _run_chunk(ctx: dict[str, Any]) -> None:
    host: WorkerHost = ctx["host"]
    if not await host.run_attempt(ctx["job_id"]):
        raise RetryJob  # else arq deletes a job that has no lease yet, and no take-over would find its chunk


async def _start(ctx: dict[str, Any]) -> None:
    host: WorkerHost = ctx["host"]
    await host.start()
    main = asyncio.current_task()
    if ctx["listens"] and main is not None:
        Departure(host.settings.grace_s, host.leave, partial(_end, ctx["redis"], main)).listen()


async def _end(pool: WakingPool, main: asyncio.Task[Any]) -> None:
    """End arq's worker when all its jobs have ended, which it would cancel; it is given no more of them."""
    while jobs := await pool.jobs():
        await asyncio.wait(jobs)
    main.cancel()


async def _stop(ctx: dict[str, Any]) -> None:
    host: WorkerHost = ctx["host"]
    await host.stop()


class WakingPool(ArqRedis):
    """arq's pool, whose poll waits for room and then for a wake-up."""

    host: WorkerHost
    _pops = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_polled = asyncio.Event()

    async def zrangebyscore(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer arq's poll of its queue with at most one job; any other sorted set is read as usual."""
        if name != self.host.settings.keys.queue:
            return await super().zrangebyscore(name, *args, **kwargs)
        self._is_polled.set()
        try:
            return await self._next_job()
        finally:
            self._is_polled.clear()

    async def jobs(self) -> list[asyncio.Task[Any]]:
        """Return the jobs of arq that have not ended, at a moment when it is not about to start one.

        Without an answer of the server it does not come to such a moment; what it was about to start is woken again.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_START_S):
                await self._is_polled.wait()
        return [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == JOB]

    async def _next_job(self) -> list[bytes]:
        block_s = min(BLOCK_S, longest_block_s(self.host.settings))
        lanes = await self.host.intake.room(block_s)
        if not lanes:
            return []
        keys = self.host.settings.keys
        names = {keys.wake(lane, priority): lane for priority in self._priorities() for lane in self._turn(lanes)}
        popped = await self._pop(names, lanes, block_s)
        if popped is None or (lane := names.get(popped[0].decode())) is None:
            return []
        if self.host.leaving:
            await self._give_back(popped)
            return []
        self.host.intake.offer(popped[1].decode(), lane)
        return [popped[1]]

    def _priorities(self) -> tuple[Priority, ...]:
        """Return the order in which the wake lists are looked at: the server pops from the first that is not empty."""
        self._pops += 1
        if self._pops % FLOOR == 0:
            return LOW_FIRST
        return NORMAL_FIRST if self._pops % FLOOR == FLOOR // 2 else tuple(Priority)

    def _turn(self, lanes: list[Lane]) -> list[Lane]:
        """Let each lane come first in its turn."""
        return lanes[::-1] if self._pops % 2 else lanes

    async def _pop(self, names: dict[str, Lane], lanes: list[Lane], block_s: float) -> list[bytes] | None:
        """Pop one job of these wake lists; return early, with nothing, when lanes open or close meanwhile."""
        server, poke = self.host.server, self.host.settings.keys.poke(self.host.name)
        # A pop must not be cancelled: the server may have given us a job already. So we end it with an item of our own.
        pop: asyncio.Task[list[bytes] | None] = asyncio.create_task(server.call("BLPOP", *names, poke, block_s))
        change = asyncio.create_task(self.host.intake.other_room(lanes))
        try:
            await asyncio.wait([pop, change], return_when=asyncio.FIRST_COMPLETED)
            if not pop.done():
                await self._poke(poke)
            return await asyncio.shield(pop)
        except asyncio.CancelledError:  # arq stops
            await self._put_back(pop, names, poke)
            raise
        finally:
            change.cancel()

    async def _poke(self, poke: str) -> None:
        """End our own pop."""
        await self._push("RPUSH", poke, b"1", POKE_TTL_S)

    async def _give_back(self, popped: list[bytes]) -> None:
        """Put a job in front of the wake list that it came from."""
        await self._push("LPUSH", popped[0].decode(), popped[1], self.host.settings.result_ttl_s)

    async def _push(self, command: str, name: str, item: bytes, ttl_s: int) -> None:
        await self.host.server.call("EVAL", PUSH, 1, name, command, item, ttl_s)

    async def _put_back(self, pop: asyncio.Task[list[bytes] | None], names: dict[str, Lane], poke: str) -> None:
        """End the pop of a worker that is leaving and give back the job that it took meanwhile."""
        with suppress(TimeoutError):  # without an answer of the server nobody knows what it took: it is woken again
            async with asyncio.timeout(BLOCK_S):
                if not pop.done():
                    await self._poke(poke)
                popped = await pop
                if popped is not None and popped[0].decode() in names:
                    await self._give_back(popped)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command of arq, which an error would end; a server that refuses it for a while is waited for."""
        pool: Any = self.connection_pool
        run: Any = super().execute_command
        return await pool.patience.call(lambda: run(*args, **options))

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return a pipeline that starts jobs which are ours already."""
        pool: Any = self.connection_pool
        return OwnedJobPipeline(pool, self.response_callbacks, transaction, shard_hint)


class PatientConnectionPool(ConnectionPool):
    """Waits for a server that is away where redis-py's retries do not: while a new connection introduces itself."""

    patience: Patience

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        """Return a connection that is ready; raises FarmUnreachableError when the server stays away."""
        connection = super().get_connection
        return await self.patience.call(lambda: connection(*args, **options))


class OwnedJobPipeline(Pipeline):
    """arq's transaction that marks a job as started, without asking the server whether another worker has it.

    The wake list gave the job to us alone, so we answer WATCH, EXISTS and ZSCORE ourselves: three round trips of seven
    between a submit and its result. EXEC goes to the server, which is waited for while it is away.
    """

    def multi(self) -> None:
        """Begin the transaction."""
        super().multi()  # type: ignore[no-untyped-call]
        self.watching = False  # nothing is: else a lost connection ends it, or even the worker, by an UNWATCH

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Execute the commands; a server that refuses them for a while is waited for, which would end arq."""
        pool: Any = self.connection_pool
        commands, run = list(self.command_stack), super().execute

        async def again() -> list[Any]:
            self.command_stack = list(commands)  # each try empties it
            return await run(raise_on_error)

        replies: list[Any] = await pool.patience.call(again)
        return replies

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute one command of a watched transaction."""
        command, name = args[0], str(args[1]) if len(args) > 1 else ""
        if command == "WATCH" and name.startswith(IN_PROGRESS_PREFIX):
            self.watching = True
            return True
        if command == "EXISTS" and name.startswith(IN_PROGRESS_PREFIX):
            return 0
        if command == "ZSCORE":
            return time.time() * 1000 - 1
        return await super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]


def _pool(settings: WorkerHostSettings, host: WorkerHost) -> WakingPool:
    backoff = ExponentialBackoff(cap=LONGEST_BACKOFF_S, base=FIRST_BACKOFF_S)
    connections: PatientConnectionPool = PatientConnectionPool.from_url(
        settings.redis_url,
        **connection_options(settings),
        retry=Retry(backoff, max(1, round(settings.reconnect_s / LONGEST_BACKOFF_S))),
        retry_on_error=[ConnectionError, TimeoutError, BusyLoadingError, OutOfMemoryError],
    )
    connections.patience = Patience(settings)
    pool = WakingPool(connections)
    pool.host = host
    pool.job_serializer = serialize_job
    pool.job_deserializer = deserialize_job
    pool.default_queue_name = settings.keys.queue
    return pool
