"""Fuzzing against plain Hypothesis, a process pool, and bare interpreters. `--json`, `--rounds N` (5)."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import fuzz_targets
from hypothesis import HealthCheck, Phase, given, settings
from measure import Row, interleaved, ratio, report, spread

from fuzzfarm import Farm, Finding, FuzzOperation, ProcessLimits
from fuzzfarm_shared.merging import merge
from fuzzfarm_worker.fuzzing import FuzzChildren, generation
from fuzzfarm_worker.fuzzing.examples import Examples
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.replay import replay
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.fuzzing.subject import load
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.sandbox.cells import Cells, open_memory

pool_examples: Examples
FOLDER = str(Path(__file__).parent)
GIVEN_EXAMPLES = {"integers": 3_000, "text": 3_000, "lists": 2_000, "json": 500, "dataclass": 1_500}
SHARD_S = 1.0
CALLS = 2_000
GENERATED = "fuzz_targets:test_integers"
FORKS = 40
KILLING = {"exits": 2_000, "segfaults": 2_000, "takes_memory": 2_000, "hangs": 300}
SPINS = 20_000


# Distinct examples per CPU second.


def plain_given(name: str) -> float:
    """Distinct examples per CPU second of a plain run; counted in a run of their own, which is not timed."""
    count, seen = GIVEN_EXAMPLES[name], set()
    options = settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    def noop(value: Any) -> None:
        """Do nothing."""

    def note(value: Any) -> None:
        seen.add(hash(repr(value)))

    options(given(fuzz_targets.STRATEGIES[name])(note))()
    began = time.process_time()
    options(given(fuzz_targets.STRATEGIES[name])(noop))()
    return len(seen) / (time.process_time() - began)


def in_a_child(name: str) -> float:
    """Distinct examples per CPU second of a shard; the CPU of worker, zygote and child counts."""

    async def main() -> float:
        operation = FuzzOperation(target=f"fuzz_targets:test_{name}", examples=10**9)
        async with ProcessManager() as processes, FuzzChildren(processes, 1) as children:
            await run(children, operation, 100)
            before = cpu_s(children)
            result = merge(
                [part.result async for part in children.run_shard(operation, 100, 10**9, deadline_s=SHARD_S)]
            )
            return result.distinct_examples / (cpu_s(children) - before)

    return asyncio.run(main())


def cpu_s(children: FuzzChildren) -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    [child] = children._idle  # noqa: SLF001 - nobody else needs the one child
    return usage.ru_utime + usage.ru_stime + (child.child.cpu_s() or 0.0)


async def run(children: FuzzChildren, operation: FuzzOperation, stop: int) -> Any:
    return merge([part.result async for part in children.run_shard(operation, 0, stop)])


# Round trips, replacement, deaths.


def one_at_a_time(target: str = GENERATED, indexes: Sequence[int] = range(CALLS)) -> float:
    async def main() -> float:
        async with ProcessManager() as processes, Nursery(processes) as nursery:
            child = await nursery.child(Target(target, None), Restrictions())
            for warm in indexes[:100]:
                await child.once(0, warm, b"", 5.0)
            began = time.perf_counter()
            for index in indexes:
                await child.once(0, index, b"", 5.0)
            rate = CALLS / (time.perf_counter() - began)
            await child.close()
            return rate

    return asyncio.run(main())


def prepare_pool(target: str = GENERATED) -> None:
    """Have a process of the pool run examples as a child does."""
    global pool_examples  # noqa: PLW0603 - the state of a process of the pool
    generation.pin_constants()
    subject = load(target, None)
    pool_examples = Examples(subject, 0, Cells(open_memory("cells")).numbers, Nobody())


class Nobody:
    """Takes messages that nobody reads."""

    def send(self, message: Any) -> None:
        """Forget it."""


def run_in_pool(index: int) -> dict[str, Any] | None:
    """Run one example in a process of the pool."""
    return pool_examples.once(index, b"")


def pool_one_at_a_time(target: str = GENERATED, indexes: Sequence[int] = range(CALLS)) -> float:
    async def main(pool: ProcessPoolExecutor) -> float:
        loop = asyncio.get_running_loop()
        for warm in indexes[:100]:
            await loop.run_in_executor(pool, run_in_pool, warm)
        began = time.perf_counter()
        for index in indexes:
            await loop.run_in_executor(pool, run_in_pool, index)
        return CALLS / (time.perf_counter() - began)

    with ProcessPoolExecutor(1, initializer=prepare_pool, initargs=(target,)) as pool:
        return asyncio.run(main(pool))


def not_generated() -> str:
    """Return the figures of round trips of a written example, which no time goes into generating."""
    written = ("fuzz_targets:test_written", [0] * CALLS)
    ours, theirs = interleaved(3, lambda: one_at_a_time(*written), lambda: pool_one_at_a_time(*written))
    return f"; without generation {ratio(ours, theirs):.1f}x: {spread(ours)}/s, the pool {spread(theirs)}/s"


def in_batches() -> float:
    async def main() -> float:
        operation = FuzzOperation(target="fuzz_targets:test_integers", examples=10**9)
        async with ProcessManager() as processes, FuzzChildren(processes, 1) as children:
            await run(children, operation, 100)
            began = time.perf_counter()
            await run(children, operation, 20_000)
            return 20_000 / (time.perf_counter() - began)

    return asyncio.run(main())


def pool_at_once() -> float:
    with ProcessPoolExecutor(1, initializer=prepare_pool) as pool:
        list(pool.map(run_in_pool, range(100)))
        began = time.perf_counter()
        list(pool.map(run_in_pool, range(20_000)))
        return 20_000 / (time.perf_counter() - began)


def replacement_ms() -> float:
    async def main() -> float:
        taken = []
        async with ProcessManager() as processes, Nursery(processes) as nursery:
            for _ in range(FORKS):
                began = time.perf_counter()
                child = await nursery.child(Target("fuzz_targets:test_integers", None), Restrictions())
                await child.once(0, 0, b"", 5.0)
                taken.append((time.perf_counter() - began) * 1000)
                await child.close()
        return statistics.median(taken[1:])

    return asyncio.run(main())


def bare_fork_ms() -> float:
    """What the system takes to fork a process with Hypothesis in it, which ends at once: nothing goes below that."""
    taken = []
    for _ in range(FORKS):
        began = time.perf_counter()
        if not (pid := os.fork()):
            os._exit(0)
        os.waitpid(pid, 0)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def bare_start_s() -> float:
    """How long an interpreter takes that imports what each of ours does: four start before the first finding."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import fuzzfarm, hypothesis"], check=True)
    return time.perf_counter() - began


async def killing(name: str, count: int) -> tuple[int, int, int]:
    """Return how many examples ran, how often one killed, and how many findings do not fail again."""
    operation = FuzzOperation(target=f"fuzz_targets:{name}", examples=count, limits=ProcessLimits(memory_bytes=4 << 30))
    async with ProcessManager() as processes, FuzzChildren(processes, 2) as children:
        result = await run(children, operation, count)
    fixed = 0
    for finding in result.findings:
        verdict = await replay(as_json(finding), runs=3)
        fixed += verdict["verdict"] != "still_failing"
    return result.examples, sum(finding.count for finding in result.findings), fixed


def as_json(finding: Finding) -> dict[str, Any]:
    fields = dataclasses.asdict(finding)
    return json.loads(json.dumps({**fields, "choices": base64.b64encode(finding.choices).decode()}, default=list))


# Two workers, and the first finding.

BARE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from fuzzfarm_worker.fuzzing import generation, subject
from fuzzfarm_worker.fuzzing.examples import Examples
from fuzzfarm_worker.sandbox.cells import Cells, open_memory
class Nobody:
    def send(self, message): pass
generation.pin_constants()
examples = Examples(subject.load("fuzz_targets:spin", None), 0, Cells(open_memory("cells")).numbers, Nobody())
examples.run(0, 200, skip=())
print("ready", flush=True)
sys.stdin.readline()
began = time.perf_counter()
examples.run(200, 200 + int(sys.argv[2]), skip=())
print(int(sys.argv[2]) / (time.perf_counter() - began), flush=True)
"""


def bare_interpreters(number: int) -> float:
    """Examples per second of so many interpreters, each by itself."""
    command = [sys.executable, "-c", BARE, FOLDER, str(SPINS // number)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
        for _ in range(number)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in running)


def two_workers() -> float:
    async def main() -> float:
        async with Farm.embedded(workers=2) as farm:
            warm = [FuzzOperation(target="fuzz_targets:spin", examples=1_000, seed=seed) for seed in range(4)]
            await (await farm.submit(warm)).wait(60)
            began = time.perf_counter()
            batch = await farm.submit([FuzzOperation(key="it", target="fuzz_targets:spin", examples=SPINS)])
            await batch.wait(60)
            return SPINS / (time.perf_counter() - began)

    os.environ.update(environment())
    return asyncio.run(main())


def first_finding_s() -> float:
    """From the start of the command to the line that shows the finding."""
    command = [sys.executable, "-m", "fuzzfarm", "fuzz", "--examples", "1000", "fuzz_targets:shallow"]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), cwd="/tmp"
    )
    assert process.stdout is not None
    seen = 0.0
    for line in process.stdout:
        if "AssertionError" in line and not seen:
            seen = time.perf_counter() - began
    process.wait()
    return seen


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": FOLDER}


def rows(rounds: int) -> list[Row]:
    found = []
    for name in GIVEN_EXAMPLES:
        ours, theirs = interleaved(rounds, lambda name=name: in_a_child(name), lambda name=name: plain_given(name))
        figure = ratio(ours, theirs)
        detail = f"{spread(ours)}, @given {spread(theirs)} per CPU second"
        found.append(Row(f"distinct examples of {name}", f"{figure:.1f}x", ">= 2x @given", figure >= 2, detail))
    for what, bar, ours_of, theirs_of in (
        ("one example, round trip", 5, one_at_a_time, pool_one_at_a_time),
        ("20,000 examples at once", 3, in_batches, pool_at_once),
    ):
        ours, theirs = interleaved(rounds, ours_of, theirs_of)
        figure = ratio(ours, theirs)
        detail = f"{spread(ours)}/s, the pool {spread(theirs)}/s{not_generated() if ours_of is one_at_a_time else ''}"
        found.append(Row(what, f"{figure:.1f}x", f">= {bar}x a process pool", figure >= bar, detail))
    taken, floor = interleaved(rounds, replacement_ms, bare_fork_ms)
    middle = statistics.median(taken)
    detail = f"{spread(taken, ' ms')}, a bare fork {spread(floor, ' ms')}"
    found.append(Row("a dead child is replaced, p50", f"{middle:.1f} ms", "< 5 ms", middle < 5, detail))
    for name, count in KILLING.items():
        examples, deaths, fixed = asyncio.run(killing(name, count))
        reached = examples == count and deaths > 0 and not fixed
        detail = f"{deaths} deaths, {fixed} do not fail again"
        found.append(Row(f"1% of examples {name}", f"{examples:,} ran", f"{count:,}, all kept", reached, detail))
    ours, bare = interleaved(rounds, two_workers, lambda: bare_interpreters(2))
    figure = ratio(ours, bare)
    detail = f"{spread(ours)}/s, bare {spread(bare)}/s"
    found.append(Row("two workers", f"{figure:.2f}x", ">= 0.92x two bare interpreters", figure >= 0.92, detail))
    first_finding_s()
    taken, floor = interleaved(rounds, first_finding_s, bare_start_s)
    middle = statistics.median(taken)
    detail = f"{spread(taken, ' s')}, a bare start {spread(floor, ' s')}"
    found.append(Row("first finding of a shallow bug", f"{middle:.1f} s", "< 3 s", 0 < middle < 3, detail))
    return found


if __name__ == "__main__":
    sys.path.insert(0, FOLDER)
    chosen = int(sys.argv[sys.argv.index("--rounds") + 1]) if "--rounds" in sys.argv else 5
    report("Fuzzing", rows(chosen))
