"""What a farm loses when workers, its server or operations die, what signatures cost, how fast a cancel is.

    python benchmarks/recovery.py [--json] [--rounds 5] [part ...]

Every round has a server and workers of its own; the server keeps an append-only file with appendfsync everysec, as
`fuzzfarm doctor` asks for. A time is shown as the median of the rounds, and has to be below its bar in each of them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from breakable import WAIT_S, Books, BreakableFarm, breakable_farm, cpu_s, running, until
from deaths import MANY_OPERATIONS, PAUSE_S, SHARED, kill_a_worker, restart_the_server, stop_a_worker
from measure import ROUNDS, Row, interleaved, ratio, report, spread

from fuzzfarm import CallOperation, ErrorKind, OperationError, SubprocessJob

CRASHING = 1_000
JOBS = 64


def killed_worker(rounds: int) -> list[Row]:
    """kill -9 of one of two workers."""
    return [
        *_killed_rows(rounds, "one of two workers killed in 2,000 operations of 10 ms", **SHARED),
        *_killed_rows(rounds, "the same in one chunk, 50 at once", chunk_operations=10_000, max_concurrency=50),
    ]


def _killed_rows(rounds: int, what: str, chunk_operations: int, max_concurrency: int) -> list[Row]:
    runs = repeated(rounds, lambda farm: kill_a_worker(farm, chunk_operations, max_concurrency))
    again = [run.again for run in runs]
    detail = f"{_counts(again)}; ended or in flight {_counts([run.allowed for run in runs])}"
    return [
        _books_row(f"{what}: lost, recorded twice", [run.books for run in runs]),
        _time_row(f"{what}: first one runs again after", [run.run_again_s for run in runs], 5.0),
        _time_row(f"{what}: all done after", [run.done_s for run in runs], 8.0),
        Row(
            f"{what}: executed twice",
            f"{statistics.median(again):,.0f}",
            "<= ended in the last second + in flight",
            all(run.again <= run.allowed for run in runs),
            detail,
        ),
    ]


def stopped_worker(rounds: int) -> list[Row]:
    """8 s SIGSTOP of a worker that holds chunks, then SIGCONT."""
    runs = repeated(rounds, stop_a_worker)
    what = "8 s SIGSTOP of a worker, then SIGCONT"
    held = [run.held for run in runs]
    return [
        _books_row(f"{what}: lost, recorded twice", [run.books for run in runs]),
        Row(
            f"{what}: recorded of what it held",
            f"{sum(run.recorded for run in runs)} of {sum(held)}",
            "0",
            all(run.held and not run.recorded for run in runs),
            f"held {_counts(held)}; counted as late {_counts([run.late for run in runs])}",
        ),
        Row(
            f"{what}: it runs later batches",
            f"{sum(run.goes_on for run in runs)} of {rounds}",
            "all",
            all(run.goes_on for run in runs),
        ),
    ]


def server_restart(rounds: int) -> list[Row]:
    """SIGTERM and kill -9 of the server, which comes back after a second."""
    rows: list[Row] = []
    for what, kill in (("server restarted (SIGTERM) during 100k operations", False), ("server killed", True)):
        runs = repeated(rounds, partial(restart_the_server, kill=kill))
        windows = [run.window for run in runs]
        rows += [
            _books_row(f"{what}: lost, recorded twice", [run.books for run in runs]),
            Row(
                f"{what}: recorded, and run again",
                f"{max(run.again for run in runs):,}",
                "<= what was recorded in its last second" if kill else "0",
                all(run.again <= (run.window if kill else 0) for run in runs),
                f"recorded in its last second {_counts(windows)}",
            ),
            _time_row(f"{what}: workers busy after its new start", [run.busy_s for run in runs], 2.0),
        ]
    return rows


def crashes(rounds: int) -> list[Row]:
    """1,000 operations of 10 ms, one of which segfaults: in children, and in the worker."""
    with breakable_farm() as farm, farm.workers(1):
        crash_in(farm, "child", crash=False)  # the first call of a module starts its zygote
        ends: list[End] = []

        def with_crash() -> float:
            ends.append(crash_in(farm, "child", crash=True))
            return CRASHING / ends[-1].took_s

        rates = interleaved(rounds, with_crash, lambda: CRASHING / crash_in(farm, "child", crash=False).took_s)
    in_worker = [_crash_in_a_worker() for _ in range(rounds)]
    times = ratio(*rates)
    what = "1,000 operations of 10 ms, one segfaults"
    return [
        _crash_row(f"{what}, in children: results, errors", ends, lambda error: error.signal == "SIGSEGV"),
        Row(
            f"{what}, in children: operations per second against none that does",
            f"{times:.2f}x",
            ">= 0.7x",
            times >= 0.7,
            f"{spread(rates[0], '/s')}, without {spread(rates[1], '/s')}",
        ),
        _crash_row(f"{what}, in the worker: results, errors", in_worker, _names_the_crash),
        _time_row(f"{what}, in the worker: all done after", [end.took_s for end in in_worker], 15.0),
    ]


@dataclass(frozen=True, slots=True)
class End:
    """How a batch ended, and after how many seconds."""

    results: int
    errors: list[OperationError]
    took_s: float


def crash_in(farm: BreakableFarm, isolation: Literal["worker", "child"], *, crash: bool) -> End:
    """Run pauses, the one in the middle of which crashes; without `crash` it does not."""

    async def run() -> End:
        items = [(PAUSE_S, crash and number == CRASHING // 2) for number in range(CRASHING)]
        async with farm.connect() as client:
            started = time.monotonic()
            group = CallOperation.many("bench_targets:pause_or_crash", items, star=True, isolation=isolation)
            aggregate = await (await client.submit(group)).wait(WAIT_S)
            return End(len(aggregate.results), list(aggregate.errors.values()), time.monotonic() - started)

    return asyncio.run(run())


def _crash_in_a_worker() -> End:
    with breakable_farm() as farm, farm.workers(1, "supervise"):
        return crash_in(farm, "worker", crash=True)


def _names_the_crash(error: OperationError) -> bool:
    return error.signal == "SIGSEGV" or error.kind is ErrorKind.WORKER_LOST


def signing(rounds: int) -> list[Row]:
    """CPU of producer and worker with signatures and without."""
    key = secrets.token_hex(32)
    with (
        breakable_farm() as farm,
        farm.workers(1, namespace="plain") as plain,
        farm.workers(1, namespace="signed", signing_key=key) as signed,
    ):

        def cost_us(pid: int, **settings: Any) -> float:
            gc.collect()
            before = time.process_time() + cpu_s(pid)
            asyncio.run(no_ops(farm, **settings))
            return (time.process_time() + cpu_s(pid) - before) / MANY_OPERATIONS * 1e6

        measures: list[Callable[[], float]] = [
            lambda: cost_us(signed[0].pid, namespace="signed", signing_key=key),
            lambda: cost_us(plain[0].pid, namespace="plain"),
        ]
        interleaved(2, *measures)
        # One batch takes half a second, so that there is time for enough pairs to see a few percent on a busy machine.
        with_key, without = interleaved(8 * rounds, *measures)
    more = ratio(with_key, without) - 1
    detail = f"{spread(with_key, ' us')} per operation, without {spread(without, ' us')}"
    return [Row("CPU that signatures take, 100k no-op operations", f"{more:+.1%}", "<= 5%", more <= 0.05, detail)]


async def no_ops(farm: BreakableFarm, **settings: Any) -> None:
    async with farm.connect(**settings) as client:
        batch = await client.submit(CallOperation.many("bench_targets:no_op", range(MANY_OPERATIONS)))
        assert len((await batch.wait(WAIT_S)).results) == MANY_OPERATIONS


async def cancel_jobs(farm: BreakableFarm, after_s: float) -> float:
    """Seconds from the call of `cancel`, this long after the start of the last program, to the end of the last one."""
    seconds = f"60.{secrets.randbelow(10**9):09}"
    with farm.workers(1, max_concurrency=JOBS):
        async with farm.connect() as client:
            batch = await client.submit(SubprocessJob(command=["sleep", seconds], timeout_s=None) for _ in range(JOBS))
            await until(lambda: len(running(seconds)) == JOBS)
            pids = running(seconds)
            await asyncio.sleep(after_s)
            called_at = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                cancelling = tasks.create_task(batch.cancel())
                await until(lambda: not any(map(_exists, pids)))
                took_s = time.monotonic() - called_at
            assert cancelling.result() == JOBS
    return took_s


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def cancel(rounds: int) -> list[Row]:
    """Cancel of a batch whose jobs run; at different moments of the second between two renewals of its lease."""
    moments = iter(range(rounds))
    times_s = repeated(rounds, lambda farm: cancel_jobs(farm, after_s=next(moments) / rounds))
    return [_time_row("cancel of a batch with 64 running children: all gone after", times_s, 1.0)]


def repeated(rounds: int, scenario: Callable[[BreakableFarm], Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run a scenario on a farm of its own for each round."""
    results = []
    for _ in range(rounds):
        with breakable_farm() as farm:
            results.append(asyncio.run(scenario(farm)))
    return results


def _counts(figures: Sequence[int]) -> str:
    return f"{statistics.median(figures):,.0f} ({min(figures):,}-{max(figures):,})"


def _time_row(what: str, times_s: Sequence[float], bar_s: float) -> Row:
    return Row(
        what, f"{statistics.median(times_s):.2f} s", f"< {bar_s:g} s", max(times_s) < bar_s, spread(times_s, " s")
    )


def _books_row(what: str, found: Sequence[Books]) -> Row:
    lost, twice = sum(each.lost for each in found), sum(each.twice for each in found)
    balanced = sum(each.balanced for each in found)
    clean = all(each.clean for each in found)
    return Row(what, f"{lost}, {twice}", "0, 0", clean, f"counters agree in {balanced} of {len(found)} rounds")


def _crash_row(what: str, ends: Sequence[End], names_it: Callable[[OperationError], bool]) -> Row:
    good = all(end.results == CRASHING - 1 and len(end.errors) == 1 and names_it(end.errors[0]) for end in ends)
    counts = Counter((end.results, len(end.errors)) for end in ends)
    figure = "; ".join(f"{results}, {errors}" for results, errors in counts)
    said = {str(error) for end in ends for error in end.errors}
    return Row(what, figure, f"{CRASHING - 1}, 1", good, "; ".join(sorted(said)))


PARTS = {
    "killed-worker": killed_worker,
    "stopped-worker": stopped_worker,
    "server-restart": server_restart,
    "crashes": crashes,
    "signing": signing,
    "cancel": cancel,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # workers segfault here
    rows: list[Row] = []
    for name in arguments.parts or PARTS:
        try:
            rows += PARTS[name](arguments.rounds)
        except TimeoutError as exc:
            rows.append(Row(name, "did not end", f"< {WAIT_S:g} s", False, str(exc)))
    report("Recovery", rows)


if __name__ == "__main__":
    main()
