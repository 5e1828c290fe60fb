"""Executors against their usual alternatives: interleaved, medians of 5, in one run.

python benchmarks/executors.py [--json] [--loop uvloop] [--only NAME]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import antflow
import uvloop

from fuzzfarm_shared.futures import AsyncFuture, as_completed, wait
from fuzzfarm_worker.executors.async_executor import AsyncExecutor
from fuzzfarm_worker.executors.fuzz_executor import AsyncFuzzExecutor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROUNDS = 5
OPERATIONS = 20_000
CONCURRENCY = 50


@dataclass
class Row:
    what: str
    ours: str
    other: str
    figure: str
    bar: str
    reached: bool


async def noop() -> int:
    return 1


async def suspend_once() -> int:
    await asyncio.sleep(0)
    return 1


def sync_noop() -> int:
    return 1


async def identity(item: int) -> int:
    return item


async def seconds(work: Callable[[], Awaitable[Any]]) -> float:
    gc.collect()
    # The loop drops the cancelled timers of the last work (one per wait_for) in its next
    # iterations: they belong to whoever set them.
    for _ in range(3):
        await asyncio.sleep(0)
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def compare(ours: Callable[[], Awaitable[Any]], other: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Median seconds of both, taken in turn so that a busy machine hurts both."""
    pairs = [(await seconds(ours), await seconds(other)) for _ in range(ROUNDS)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


async def ratio(what: str, bar: float, count: int, ours: Any, other: Any) -> Row:
    ours_s, other_s = await compare(ours, other)
    figure = other_s / ours_s
    return Row(
        what, f"{count / ours_s:,.0f}/s", f"{count / other_s:,.0f}/s", f"{figure:.1f}x", f">= {bar:g}x", figure >= bar
    )


async def our_batch(fn: Callable[..., Any]) -> None:
    async with AsyncFuzzExecutor(max_concurrency=CONCURRENCY) as executor:
        outcomes = await executor.execute_batch([(fn, (), {})] * OPERATIONS)
    assert len(outcomes["results"]) == OPERATIONS


async def gather_semaphore_wait_for(fn: Callable[..., Any]) -> None:
    semaphore = asyncio.Semaphore(CONCURRENCY)

    async def one() -> Any:
        async with semaphore:
            return await asyncio.wait_for(fn(), 30.0)

    results = await asyncio.gather(*(one() for _ in range(OPERATIONS)), return_exceptions=True)
    assert len(results) == OPERATIONS


async def gather_run_in_executor() -> None:
    loop = asyncio.get_running_loop()
    results = await asyncio.gather(*(loop.run_in_executor(None, sync_noop) for _ in range(OPERATIONS)))
    assert len(results) == OPERATIONS


async def submit_and_result(executor_class: Any, count: int) -> None:
    async with executor_class(max_workers=CONCURRENCY) as executor:
        futures = [executor.submit(identity, item) for item in range(count)]
        for future in futures:
            await future.result()


async def submit_one_by_one(executor_class: Any, count: int) -> None:
    async with executor_class(max_workers=CONCURRENCY) as executor:
        for item in range(count):
            await executor.submit(identity, item).result()


async def map_all(executor_class: Any, count: int) -> None:
    async with executor_class(max_workers=CONCURRENCY) as executor:
        assert len(await executor.map(identity, range(count))) == count


async def batches() -> list[Row]:
    return [
        await ratio(
            f"execute_batch, {OPERATIONS:,} no-ops, {CONCURRENCY} at once, against gather+Semaphore+wait_for",
            40, OPERATIONS, lambda: our_batch(noop), lambda: gather_semaphore_wait_for(noop),
        ),
        await ratio(
            "the same with one suspension each",
            8, OPERATIONS, lambda: our_batch(suspend_once), lambda: gather_semaphore_wait_for(suspend_once),
        ),
        await ratio(
            "sync functions, against gather + run_in_executor",
            20, OPERATIONS, lambda: our_batch(sync_noop), gather_run_in_executor,
        ),
    ]  # fmt: skip


async def futures_against_antflow() -> list[Row]:
    rows = []
    for what, bar, work, count in (
        ("AsyncExecutor.submit of many, then every result, against antflow 0.10", 10, submit_and_result, 10_000),
        ("AsyncExecutor.submit and result one by one, against antflow 0.10", 10, submit_one_by_one, 2_000),
        ("AsyncExecutor.map, against antflow 0.10", 10, map_all, 10_000),
    ):
        rows.append(
            await ratio(
                what, bar, count,
                lambda work=work, count=count: work(AsyncExecutor, count),
                lambda work=work, count=count: work(antflow.AsyncExecutor, count),
            )
        )  # fmt: skip
    return rows


async def complete_all(count: int, waiting: str) -> None:
    loop = asyncio.get_running_loop()
    futures: list[AsyncFuture[int]] = [AsyncFuture() for _ in range(count)]

    def settle() -> None:
        for future in futures:
            future.set_result(1)

    loop.call_soon(settle)
    if waiting == "wait":
        await wait(futures)
    else:
        async for _ in as_completed(futures):
            pass


async def growth_per_future() -> list[Row]:
    rows = []
    for waiting in ("as_completed", "wait"):
        few, many = await compare(
            lambda waiting=waiting: repeat(10, lambda: complete_all(1_000, waiting)),
            lambda waiting=waiting: complete_all(10_000, waiting),
        )
        figure = many / few
        rows.append(
            Row(
                f"{waiting} over 10k futures, per future, against 1k futures",
                f"{many / 10_000 * 1e6:.2f} us", f"{few / 10_000 * 1e6:.2f} us",
                f"{figure:.2f}x", "<= 1.5x", figure <= 1.5,
            )
        )  # fmt: skip
    return rows


async def repeat(times: int, work: Callable[[], Awaitable[Any]]) -> None:
    for _ in range(times):
        await work()


def rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


async def a_million_items() -> None:
    """In a process of its own, so that the peak of its memory is its own."""
    async with AsyncExecutor(max_workers=CONCURRENCY) as executor:
        before = most = rss_bytes()
        started = time.perf_counter()
        results = executor.map_iter(identity, range(1_000_000))
        await anext(results)
        first_s = time.perf_counter() - started
        count = 1
        async for _ in results:
            count += 1
            if count % 10_000 == 0:
                most = max(most, rss_bytes())
        assert count == 1_000_000
        took_s = time.perf_counter() - started
    growth = (most - before) / 2**20
    print(json.dumps({"first_ms": first_s * 1e3, "growth_mb": growth, "rate": count / took_s}))


async def lazy_input() -> list[Row]:
    output = subprocess.run(  # noqa: ASYNC221 - nothing else is to run meanwhile
        [sys.executable, __file__, "--million"], capture_output=True, text=True, check=True
    ).stdout
    figures = json.loads(output)
    rate = f"{figures['rate']:,.0f}/s"
    growth, first = figures["growth_mb"], figures["first_ms"]
    return [
        Row("map_iter over 1M lazy items: RSS growth", rate, "", f"{growth:.1f} MB", "< 30 MB", growth < 30),
        Row("map_iter over 1M lazy items: first result", rate, "", f"{first:.2f} ms", "< 10 ms", first < 10),
    ]


async def spin() -> None:
    until = time.perf_counter() + 0.0009
    while time.perf_counter() < until:
        pass


async def longest_stall() -> float:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - before)

    async with AsyncFuzzExecutor(max_concurrency=CONCURRENCY) as executor:
        watcher = asyncio.create_task(watch())
        await executor.execute_batch([(spin, (), {})] * 500)
        watcher.cancel()
    return longest


async def stalls() -> list[Row]:
    stall_ms = statistics.median([await longest_stall() for _ in range(ROUNDS)]) * 1e3
    what = f"event-loop stall while {CONCURRENCY} never-suspending operations of <= 1 ms each run"
    return [Row(what, f"{stall_ms:.1f} ms", "", f"{stall_ms:.1f} ms", "< 50 ms", stall_ms < 50)]


PARTS = {
    "batch": batches,
    "futures": futures_against_antflow,
    "growth": growth_per_future,
    "lazy": lazy_input,
    "stall": stalls,
}


def show(rows: list[Row]) -> None:
    print("| what | ours | other | figure | bar | reached |\n|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.what} | {row.ours} | {row.other} | {row.figure} | {row.bar} | {'yes' if row.reached else 'NO'} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--million", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    factory = uvloop.new_event_loop if options.loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        if options.million:
            runner.run(a_million_items())
            return
        rows = [row for name in options.only or PARTS for row in runner.run(PARTS[name]())]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        show(rows)


if __name__ == "__main__":
    main()
