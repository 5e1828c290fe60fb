"""Sandboxed calls against ProcessPoolExecutor: interleaved, medians of 5, in one run.

python benchmarks/sandbox.py [--json]
"""

from __future__ import annotations

import asyncio
import operator
import os
import statistics
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from measure import ROUNDS, Row, interleaved, ratio, report, spread

from fuzzfarm_shared.operations import CallOperation
from fuzzfarm_worker.allowlist import AllowList
from fuzzfarm_worker.executors.kernel import Kernel
from fuzzfarm_worker.failures import OperationFailedError
from fuzzfarm_worker.handlers import Tools, handler_for
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.sandbox import Sandbox

TARGET = "operator:index"
ONE_BY_ONE = 2_000
AT_ONCE = 10_000
SLOTS = 50
DEATHS = 40


class Bench:
    """Both contestants with one warm child each, on one event loop."""

    def __init__(self, runner: asyncio.Runner, sandbox: Sandbox, processes: ProcessManager) -> None:
        self._runner = runner
        self._sandbox = sandbox
        self._pool = ProcessPoolExecutor(max_workers=1)
        self._kernel = Kernel(SLOTS)
        self._handler = handler_for(
            CallOperation(target=TARGET, isolation="child"), Tools(AllowList("*", "*", "*"), processes, sandbox)
        )
        self.call_rate(1)
        self.pool_rate(1)

    def rate(self, count: int, work: Coroutine[Any, Any, None]) -> float:
        """Operations per second of `work`, which does `count`."""
        started = time.perf_counter()
        self._runner.run(work)
        return count / (time.perf_counter() - started)

    def call_rate(self, count: int = ONE_BY_ONE) -> float:
        async def work() -> None:
            for number in range(count):
                await self._sandbox.call(TARGET, [number])

        return self.rate(count, work())

    def pool_rate(self, count: int = ONE_BY_ONE) -> float:
        async def work() -> None:
            loop = asyncio.get_running_loop()
            for number in range(count):
                await loop.run_in_executor(self._pool, operator.index, number)

        return self.rate(count, work())

    def calls_rate(self) -> float:
        async def work() -> None:
            await asyncio.gather(*(self._sandbox.call(TARGET, [number]) for number in range(AT_ONCE)))

        return self.rate(AT_ONCE, work())

    def pool_calls_rate(self) -> float:
        async def work() -> None:
            loop = asyncio.get_running_loop()
            calls = (loop.run_in_executor(self._pool, operator.index, number) for number in range(AT_ONCE))
            await asyncio.gather(*calls)

        return self.rate(AT_ONCE, work())

    def handled_rate(self) -> float:
        """As a worker runs a chunk: through its handler and the slots of its kernel."""
        handler, values = self._handler, [None] * AT_ONCE
        calls = ((n, handler.function, ([n], None), None, None, 0, 0.0) for n in range(AT_ONCE))
        rate = self.rate(AT_ONCE, self._kernel.run(calls, _never, values=values))
        assert [timed.value for timed in values] == list(range(AT_ONCE))
        return rate

    def replacement_ms(self) -> float:
        """From a call without a child, because the last one died, to its value; the median of some."""

        async def work() -> None:
            for _ in range(DEATHS):
                try:
                    await self._sandbox.call("os:_exit", [1])
                except OperationFailedError:
                    started = time.perf_counter()
                await self._sandbox.call("os:getpid")
                waits.append(time.perf_counter() - started)

        waits: list[float] = []
        self._runner.run(self._sandbox.call("os:getpid"))
        self._runner.run(work())
        return statistics.median(waits) * 1000

    def pool_replacement_ms(self) -> float:
        """The same of a pool, which breaks: a new one and its first value."""
        pool = ProcessPoolExecutor(max_workers=1)
        try:
            pool.submit(os._exit, 1).result()
        except BrokenProcessPool:
            started = time.perf_counter()
        with ProcessPoolExecutor(max_workers=1) as fresh:
            fresh.submit(operator.index, 1).result()
            took_s = time.perf_counter() - started
        pool.shutdown()
        return took_s * 1000

    def private_mb(self) -> float:
        """What a child that has served calls holds for itself."""
        pid = self._runner.run(self._sandbox.call("os:getpid"))
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024

    def close(self) -> None:
        self._kernel.close()
        self._pool.shutdown()


def _never(*outcome: Any) -> None:
    raise AssertionError(outcome)


def compared(what: str, bar: float, ours: Callable[[], float], theirs: Callable[[], float]) -> Row:
    our_rates, their_rates = interleaved(ROUNDS, ours, theirs)
    figure = ratio(our_rates, their_rates)
    detail = f"{spread(our_rates, '/s')}, ProcessPoolExecutor {spread(their_rates, '/s')}"
    return Row(what, f"{figure:.1f}x", f">= {bar:g}x ProcessPoolExecutor", figure >= bar, detail)


def rows(bench: Bench) -> list[Row]:
    measured = [
        compared("one call at a time, from asyncio", 5, bench.call_rate, bench.pool_rate),
        compared(f"{AT_ONCE:,} calls at once, a future for each", 3, bench.calls_rate, bench.pool_calls_rate),
    ]
    (handled,) = interleaved(ROUNDS, bench.handled_rate)
    rate = statistics.median(handled)
    measured.append(
        Row(
            f"{AT_ONCE:,} calls through a worker's handler, {SLOTS} slots",
            f"{rate:,.0f}/s", ">= 50,000/s per child", rate >= 50_000, spread(handled, "/s"),
        )
    )  # fmt: skip
    ours, theirs = interleaved(ROUNDS, bench.replacement_ms, bench.pool_replacement_ms)
    wait_ms = statistics.median(ours)
    detail = f"{spread(ours, ' ms')}, a new ProcessPoolExecutor {spread(theirs, ' ms')}"
    measured.append(
        Row("first value after a death, p50", f"{wait_ms:.1f} ms", "< 5 ms", wait_ms < 5, detail),
    )
    private = bench.private_mb()
    measured.append(Row("private memory of a child", f"{private:.1f} MB", "< 5 MB", private < 5))
    return measured


def main() -> None:
    with asyncio.Runner() as runner:
        processes = ProcessManager()

        async def opened() -> Sandbox:
            return Sandbox(processes)

        sandbox = runner.run(opened())
        bench = Bench(runner, sandbox, processes)
        try:
            report("Sandboxed calls", rows(bench))
        finally:
            bench.close()
            runner.run(sandbox.aclose())
            runner.run(processes.shutdown())


if __name__ == "__main__":
    main()
