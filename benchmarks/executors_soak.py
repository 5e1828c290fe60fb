"""Random operations on one kernel for a minute: every one is recorded, and nothing is left.

python benchmarks/executors_soak.py [--seconds 60] [--seed 0]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from fuzzfarm_worker.executors.kernel import Call, Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS = 32


def operation(rng: random.Random) -> Any:
    """A function that returns, fails, suspends, sleeps, hangs or swallows, now and then."""
    pause = rng.choice([0, 0, 0.0005, 0.003])
    kind = rng.choices(["async", "sync", "fail", "hang", "swallow", "exit"], [40, 40, 10, 4, 3, 3])[0]

    async def run() -> None:
        await asyncio.sleep(pause)
        if kind == "fail":
            raise ValueError
        if kind == "exit":
            raise SystemExit
        if kind in {"hang", "swallow"}:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if kind == "hang":
                    raise

    def run_in_thread() -> None:
        time.sleep(pause)

    return run_in_thread if kind == "sync" else run


async def one_run(kernel: Kernel, rng: random.Random) -> int:
    """A run of some length that ends by itself, by its iterator or by cancellation."""
    count, cancel_after = rng.randint(1, 500), rng.choice([None, None, rng.uniform(0, 0.2)])
    pulled: list[int] = []
    outcomes: Counter[int] = Counter()

    def calls() -> Iterator[Call]:
        for index in range(count):
            pulled.append(index)
            yield (index, operation(rng), (), None, 0.02, rng.randint(0, 2), 0.001)

    run = asyncio.create_task(kernel.run(calls(), lambda index, *_: outcomes.update([index])))
    await asyncio.wait([run], timeout=cancel_after)
    cancelled = not run.done()
    if cancelled:
        run.cancel()
        await asyncio.wait([run])
    recorded = outcomes.total()
    assert not outcomes or max(outcomes.values()) == 1, "an operation was recorded twice"
    assert cancelled or recorded == count, f"{count - recorded} outcomes are missing"
    return recorded


async def soak(seconds: float, seed: int) -> None:
    rng, kernel, total = random.Random(seed), Kernel(SLOTS), 0
    tasks_before = asyncio.all_tasks()
    ends_at = time.monotonic() + seconds
    for rounds in itertools.count(1):  # noqa: B007 - printed below
        total += sum(await asyncio.gather(*(one_run(kernel, rng) for _ in range(rng.randint(1, 4)))))
        assert kernel.free_slots == SLOTS, kernel.stats()
        assert kernel.running == 0, kernel.stats()
        if time.monotonic() > ends_at:
            break
    await asyncio.sleep(0.1)
    assert asyncio.all_tasks() == tasks_before
    stats = kernel.stats()
    assert stats.abandoned_threads == 0, stats
    kernel.close()
    print(f"{rounds:,} rounds, {total:,} outcomes, {threading.active_count()} threads at the end, {stats}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(soak(options.seconds, options.seed))


if __name__ == "__main__":
    main()
