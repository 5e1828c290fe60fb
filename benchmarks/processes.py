"""Child processes: how fast, at what cost, and how surely they end.

    python benchmarks/processes.py [--rounds 5] [--only ROW...] [--json]

Every arm of a row runs in an interpreter of its own; arms are interleaved round by round and medians are compared, so
that a busy machine slows all of them. CPU is that of the parent and all its helpers, without the programs themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fuzzfarm_worker.processes import CommandSpec, Limits, ProcessConfig, ProcessManager
from fuzzfarm_worker.processes.guarded import guardian_pid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

AT_ONCE = 64
STARTS = 600
FLOOD_BYTES = 1_000_000_000
CAP_BYTES = 10_000_000
BALLAST_BYTES = 512 << 20
REQUESTS, REQUESTS_AT_ONCE = 100, 5
BINARY_BYTES = 21 << 20
MANY_STARTS = 10_000
LIMITS = Limits(memory_bytes=1 << 30, cpu_s=60, file_size_bytes=1 << 30, open_files=256)

Figures = dict[str, float]


def guardian_cpu_s() -> float:
    pid = guardian_pid()
    if pid is None:
        return 0.0
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def rss_bytes(field: str = "VmRSS") -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


async def measured(work: Awaitable[object], count: int) -> Figures:
    wall, cpu, helper = time.perf_counter(), time.process_time(), guardian_cpu_s()
    await work
    wall_s = time.perf_counter() - wall
    cpu_s = time.process_time() - cpu + guardian_cpu_s() - helper
    return {"per_s": count / wall_s, "cpu_us": cpu_s / count * 1e6}


async def at_once(width: int, count: int, one: Callable[[], Awaitable[object]]) -> None:
    left = iter(range(count))

    async def lane() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(lane() for _ in range(width)))


# Arms: each runs in its own interpreter and returns figures.


async def managed_starts(limits: Limits | None = None) -> Figures:
    spec = CommandSpec(command=["/bin/true"], limits=limits or Limits())
    async with ProcessManager() as manager:
        await manager.run(spec)
        return await measured(at_once(AT_ONCE, STARTS, lambda: manager.run(spec)), STARTS)


async def asyncio_starts(preexec: bool = False) -> Figures:
    def set_limits() -> None:
        for kind, value in (
            (resource.RLIMIT_AS, LIMITS.memory_bytes),
            (resource.RLIMIT_CPU, LIMITS.cpu_s),
            (resource.RLIMIT_FSIZE, LIMITS.file_size_bytes),
            (resource.RLIMIT_NOFILE, LIMITS.open_files),
        ):
            resource.setrlimit(kind, (value or 0, value or 0))

    async def one() -> None:
        process = await asyncio.create_subprocess_exec(
            "/bin/true",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=set_limits if preexec else None,
        )
        await process.communicate()

    count = STARTS // 3 if preexec else STARTS
    return await measured(at_once(AT_ONCE, count, one), count)


async def limited() -> Figures:
    return await managed_starts(LIMITS)


async def limited_large() -> Figures:
    ballast = bytearray(b"\1") * BALLAST_BYTES
    figures = await managed_starts(LIMITS)
    assert len(ballast) == BALLAST_BYTES
    return figures


async def preexec() -> Figures:
    return await asyncio_starts(preexec=True)


FLOOD = ["head", "-c", str(FLOOD_BYTES), "/dev/zero"]


async def flood_managed() -> Figures:
    async with ProcessManager() as manager:
        await manager.run(CommandSpec(command=["true"]))
        before = rss_bytes()
        began = time.perf_counter()
        result = await manager.run(CommandSpec(command=FLOOD, max_output_bytes=CAP_BYTES))
        wall_s = time.perf_counter() - began
    assert (result.stdout_bytes, len(result.stdout)) == (FLOOD_BYTES, CAP_BYTES)
    return {"mb_per_s": FLOOD_BYTES / wall_s / 1e6, "rss_growth_mb": (rss_bytes("VmHWM") - before) / 1e6}


async def flood_stream_reader() -> Figures:
    before = rss_bytes()
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*FLOOD, stdout=subprocess.PIPE)
    assert process.stdout is not None
    kept = bytearray()
    while data := await process.stdout.read(65536):
        kept += data[: CAP_BYTES - len(kept)]
    await process.wait()
    wall_s = time.perf_counter() - began
    return {"mb_per_s": FLOOD_BYTES / wall_s / 1e6, "rss_growth_mb": (rss_bytes("VmHWM") - before) / 1e6}


def flood_cat() -> Figures:
    began = time.perf_counter()
    subprocess.run(["sh", "-c", f"{' '.join(FLOOD)} | cat > /dev/null"], check=True)
    return {"mb_per_s": FLOOD_BYTES / (time.perf_counter() - began) / 1e6}


@contextlib.contextmanager
def large_binary() -> Iterator[str]:
    """A file of real machine code, as large as one large program."""
    with tempfile.NamedTemporaryFile() as file:
        sources = sorted(Path("/usr/lib").rglob("*.so*"))
        for path in sources:
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as source:
                    shutil.copyfileobj(source, file)
            if file.tell() >= BINARY_BYTES:
                break
        file.truncate(BINARY_BYTES)
        file.flush()
        yield file.name


def percentile_95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95) - 1]


async def strings_managed() -> Figures:
    durations: list[float] = []
    with large_binary() as path:
        async with ProcessManager() as manager:
            spec = CommandSpec(command=["strings", "-n", "4", path])
            await manager.run(spec)
            child_cpu_s = 0.0

            async def one() -> None:
                nonlocal child_cpu_s
                result = await manager.run(spec)
                durations.append(result.duration_s)
                child_cpu_s += result.cpu_time_s or 0

            helper, own = guardian_cpu_s(), time.process_time()
            began = time.perf_counter()
            await at_once(REQUESTS_AT_ONCE, REQUESTS, one)
            wall_s = time.perf_counter() - began
            cpu_s = time.process_time() - own + guardian_cpu_s() - helper + child_cpu_s
    return {
        "per_s": REQUESTS / wall_s,
        "p95_s": percentile_95(durations),
        "cpu_s": cpu_s,
        "rss_mb": rss_bytes("VmHWM") / 1e6,
    }


def strings_blocking() -> Figures:
    with large_binary() as path:
        command = ["strings", "-n", "4", path]
        subprocess.run(command, capture_output=True, check=True)
        own, children = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        for _ in range(REQUESTS):
            subprocess.run(command, capture_output=True, check=True)
        wall_s = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = time.process_time() - own + after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    return {"per_s": REQUESTS / wall_s, "cpu_s": cpu_s, "rss_mb": rss_bytes("VmHWM") / 1e6}


def xargs(width: int, script: list[str], count: int) -> tuple[float, str]:
    numbers = "\n".join(map(str, range(count)))
    began = time.perf_counter()
    done = subprocess.run(
        ["xargs", f"-P{width}", "-I{}", *script], input=numbers, text=True, capture_output=True, check=True
    )
    return time.perf_counter() - began, done.stdout


def strings_xargs_2() -> Figures:
    with large_binary() as path:
        command = f"xargs -P2 -I{{}} strings -n 4 {path} > /dev/null"
        numbers = "\n".join(map(str, range(REQUESTS)))
        subprocess.run(["strings", "-n", "4", path], capture_output=True, check=True)
        began = time.perf_counter()
        subprocess.run(["sh", "-c", command], input=numbers, text=True, check=True)
        return {"per_s": REQUESTS / (time.perf_counter() - began)}


def strings_xargs_5() -> Figures:
    with large_binary() as path:
        timed = f"a=$(date +%s%N); strings -n 4 {path} > /dev/null; b=$(date +%s%N); echo $((b-a))"
        subprocess.run(["strings", "-n", "4", path], capture_output=True, check=True)
        wall_s, output = xargs(REQUESTS_AT_ONCE, ["sh", "-c", timed], REQUESTS)
        return {"per_s": REQUESTS / wall_s, "p95_s": percentile_95([int(line) / 1e9 for line in output.split()])}


async def stop_stubborn() -> Figures:
    stubborn = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "for _ in range(19):\n  if os.fork() == 0: break\nelse: print('ready', flush=True)\ntime.sleep(1000)"
    )
    async with ProcessManager() as manager:
        process = await manager.start_process(ProcessConfig(command=[sys.executable, "-I", "-S", "-c", stubborn]))
        await process.stdout.readline()  # type: ignore[union-attr]
        began = time.perf_counter()
        assert await manager.stop_process(process.pid)
        return {"stop_s": time.perf_counter() - began}


async def many_starts() -> Figures:
    spec = CommandSpec(command=["/bin/true"])
    async with ProcessManager() as manager:
        await at_once(AT_ONCE, 1000, lambda: manager.run(spec))
        fds, rss, helper = len(os.listdir("/proc/self/fd")), rss_bytes(), helper_figures()
        await at_once(AT_ONCE, MANY_STARTS, lambda: manager.run(spec))
        after = helper_figures()
        return {
            "leaked_fds": len(os.listdir("/proc/self/fd")) - fds + after[0] - helper[0],
            "zombies": after[2],
            "rss_growth_kb": (rss_bytes() - rss) / 1e3,
            "guardian_growth_kb": (after[1] - helper[1]) / 1e3,
        }


def helper_figures() -> tuple[int, int, int]:
    """Descriptors, resident bytes and unreaped children of the guardian."""
    folder = Path(f"/proc/{guardian_pid()}")
    rss = int((folder / "status").read_text().split("VmRSS:")[1].split()[0]) * 1024
    children = (folder / "task" / folder.name / "children").read_text().split()
    return len(os.listdir(folder / "fd")), rss, len(children)


ARMS: dict[str, Callable[[], Figures | Coroutine[None, None, Figures]]] = {
    arm.__name__: arm
    for arm in (
        managed_starts,
        asyncio_starts,
        limited,
        limited_large,
        preexec,
        flood_managed,
        flood_stream_reader,
        flood_cat,
        strings_managed,
        strings_blocking,
        strings_xargs_2,
        strings_xargs_5,
        stop_stubborn,
        many_starts,
    )
}

ROWS: dict[str, list[str]] = {
    "starts": ["managed_starts", "asyncio_starts"],
    "limits": ["limited", "limited_large", "preexec"],
    "output": ["flood_managed", "flood_stream_reader", "flood_cat"],
    "strings": ["strings_managed", "strings_xargs_2", "strings_xargs_5", "strings_blocking"],
    "stop": ["stop_stubborn"],
    "leaks": ["many_starts"],
}
#: Rows whose single run is long enough to need no repetition to be steady.
ONCE = {"leaks"}


def run_arm(name: str) -> Figures:
    done = subprocess.run([sys.executable, __file__, "--arm", name], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def medians(rounds: list[Figures]) -> Figures:
    return {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}


class Bar:
    """One line of the table: what was reached against what must be."""

    def __init__(self, row: str, what: str, value: float, bar: str) -> None:
        self.row, self.what, self.value, self.bar = row, what, value, bar
        limit = float(bar[2:])
        self.ok = value >= limit if bar.startswith(">=") else value <= limit


def bars(row: str, m: dict[str, Figures]) -> list[Bar]:
    if row == "starts":
        ours, theirs = m["managed_starts"], m["asyncio_starts"]
        return [
            Bar(row, "processes/s against asyncio", ours["per_s"] / theirs["per_s"], ">=1.4"),
            Bar(row, "CPU against asyncio", ours["cpu_us"] / theirs["cpu_us"], "<=0.55"),
        ]
    if row == "limits":
        return [
            Bar(row, "processes/s against preexec_fn", m["limited"]["per_s"] / m["preexec"]["per_s"], ">=3"),
            Bar(
                row, "512 MB parent against a small one", m["limited_large"]["per_s"] / m["limited"]["per_s"], ">=0.95"
            ),
        ]
    if row == "output":
        ours = m["flood_managed"]
        return [
            Bar(row, "against a StreamReader loop", ours["mb_per_s"] / m["flood_stream_reader"]["mb_per_s"], ">=4"),
            Bar(row, "against cat > /dev/null", ours["mb_per_s"] / m["flood_cat"]["mb_per_s"], ">=0.95"),
            Bar(row, "RSS growth, MB (cap 10)", ours["rss_growth_mb"], "<=30"),
        ]
    if row == "strings":
        ours, blocking = m["strings_managed"], m["strings_blocking"]
        return [
            Bar(row, "requests/s against xargs -P2", ours["per_s"] / m["strings_xargs_2"]["per_s"], ">=0.95"),
            Bar(row, "P95 against xargs -P5", ours["p95_s"] / m["strings_xargs_5"]["p95_s"], "<=1.1"),
            Bar(row, "requests/s against one by one", ours["per_s"] / blocking["per_s"], ">=1.8"),
            Bar(row, "memory against one by one", ours["rss_mb"] / blocking["rss_mb"], "<=2"),
            Bar(row, "CPU against one by one", ours["cpu_s"] / blocking["cpu_s"], "<=1.5"),
        ]
    if row == "stop":
        return [Bar(row, "tree of 20 ignoring SIGTERM, s", m["stop_stubborn"]["stop_s"], "<=1.5")]
    figures = m["many_starts"]
    return [
        Bar(row, "descriptors leaked by 10,000 starts", figures["leaked_fds"], "<=0"),
        Bar(row, "zombies", figures["zombies"], "<=0"),
        Bar(row, "memory growth of worker, KB", figures["rss_growth_kb"], "<=1000"),
        Bar(row, "memory growth of guardian, KB", figures["guardian_growth_kb"], "<=1000"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        figures = ARMS[options.arm]()
        json.dump(asyncio.run(figures) if asyncio.iscoroutine(figures) else figures, sys.stdout)
        return
    report = []
    for row in options.only:
        rounds: dict[str, list[Figures]] = {arm: [] for arm in ROWS[row]}
        for _ in range(1 if row in ONCE else options.rounds):
            for arm, figures in rounds.items():
                figures.append(run_arm(arm))
        middle = {arm: medians(figures) for arm, figures in rounds.items()}
        lines = bars(row, middle)
        report.append({"row": row, "medians": middle, "bars": [vars(bar) for bar in lines]})
        if not options.json:
            for bar in lines:
                print(f"{'ok  ' if bar.ok else 'MISS'} {bar.what:38} {bar.value:8.2f}  {bar.bar}")
            for arm, figures in middle.items():
                print("       " + arm, ", ".join(f"{key} {value:.1f}" for key, value in figures.items()))
    if options.json:
        json.dump(report, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
