"""Calls with isolation="child" on real workers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from children import all_end, is_running, watched

from fuzzfarm import CallOperation, ErrorKind, Farm, SubprocessJob
from fuzzfarm_worker.allowlist import AllowList
from fuzzfarm_worker.executors.kernel import Kernel
from fuzzfarm_worker.handlers import Tools, handler_for
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.sandbox import Sandbox

WAIT_S = 60.0
SUPPORT = Path(__file__).parents[2] / "support"

StartWorker = Callable[..., Any]


def child(name: str, *args: Any, **options: Any) -> CallOperation:
    return CallOperation(target=f"sandbox_targets:{name}", args=list(args), isolation="child", **options)


async def written(path: Path) -> str:
    while not path.exists():
        await asyncio.sleep(0.01)
    return path.read_text()


def test_calls_that_kill_their_child_cost_no_other_call_of_their_chunk(shared_farm: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    ways = ["return"] * 300
    ways[10] = ways[150] = "kill"
    ways[151] = "exit"
    ways[299] = "raise"

    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            batch = await farm.submit([child("note", str(path), n, how) for n, how in enumerate(ways)])
            aggregate = await batch.wait(WAIT_S)
            kinds = {key: error.kind for key, error in aggregate.errors.items()}
            killed = ErrorKind.KILLED
            assert kinds == {"10": killed, "150": killed, "151": killed, "299": ErrorKind.EXCEPTION}
            assert aggregate.results == {str(n): n for n in range(300) if str(n) not in kinds}

    asyncio.run(scenario())
    assert sorted(map(int, path.read_text().split())) == list(range(300))


def test_retries_are_honoured_in_children(shared_farm: Any, tmp_path: Path) -> None:
    operation = CallOperation(
        target="farm_targets:fail_before",
        args=[str(tmp_path), "tries", 3],
        isolation="child",
        retries=5,
        retry_delay_s=0.01,
    )

    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            assert (await (await farm.submit([operation])).wait(WAIT_S)).results == {"0": 3}

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_memory_over_the_limit_of_a_call_is_its_error(shared_farm: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            batch = await farm.submit([child("allocate", 1 << 30, memory_bytes=512_000_000)])
            assert (await batch.wait(WAIT_S)).errors["0"].kind is ErrorKind.MEMORY

    asyncio.run(scenario())


def test_cancelling_a_batch_kills_its_children(shared_farm: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            batch = await farm.submit([child("tell_and_wait", str(tmp_path / "pid"), timeout_s=None)])
            pid = int(await written(tmp_path / "pid"))
            with watched([pid]) as fds:
                await batch.cancel()
                assert await asyncio.to_thread(all_end, fds)

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="the guardian needs Linux")
def test_nothing_of_a_sandbox_is_left_after_kill_9_of_the_worker(
    farm_settings: dict[str, Any], start_worker: StartWorker, tmp_path: Path
) -> None:
    async def scenario() -> None:
        worker = start_worker()
        async with Farm.connect(**farm_settings) as farm:
            calls = [child("tell_and_wait", str(tmp_path / str(n)), timeout_s=None) for n in range(3)]
            await farm.submit(calls)
            pids = [int(await written(tmp_path / str(n))) for n in range(3)]
            pids += {parent_of(pid) for pid in pids}  # the zygote
            assert len(pids) == 4
            with watched(pids) as fds:
                worker.kill()
                assert await asyncio.to_thread(all_end, fds)
            assert not any(map(is_running, pids))

    asyncio.run(scenario())


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_module_that_cannot_be_imported_on_one_worker_is_called_on_another(
    farm_settings: dict[str, Any], start_worker: StartWorker, tmp_path: Path
) -> None:
    for host, text in (("bad", "import os\nos._exit(7)"), ("good", "def f(value):\n    return value")):
        (tmp_path / host).mkdir()
        (tmp_path / host / "of_one_host.py").write_text(text)

    def start(host: str) -> None:
        path = os.pathsep.join([str(tmp_path / host), str(SUPPORT)])
        start_worker("env", f"PYTHONPATH={path}", sys.executable, "-m", "fuzzfarm_worker", "run", name=host)

    async def scenario() -> None:
        start("bad")
        async with Farm.connect(**farm_settings) as farm:
            while not await farm.workers():
                await asyncio.sleep(0.05)
            start("good")
            while len(await farm.workers()) < 2:
                await asyncio.sleep(0.05)
            calls = CallOperation.many("of_one_host:f", range(200), isolation="child")
            assert (await (await farm.submit(calls)).wait(WAIT_S)).results == {str(n): n for n in range(200)}

    asyncio.run(scenario())


def test_operations_of_every_kind_share_the_slots_of_a_worker(
    farm_settings: dict[str, Any], start_worker: StartWorker, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    count = 'file=$(mktemp -p "$0"); ls "$0" | wc -l; sleep 0.1; rm "$file"'

    def operations() -> Iterator[Any]:
        for _ in range(4):
            for name in ("overlap", "overlap_async", "overlap_partial"):
                yield CallOperation(target=f"farm_targets:{name}", args=[folder])
            yield CallOperation(target="farm_targets:overlap", args=[folder], isolation="child")
            yield SubprocessJob(command=["sh", "-c", count, folder])

    async def scenario() -> None:
        start_worker(max_concurrency=2, share_after_s=60)
        async with Farm.connect(**farm_settings) as farm:
            results = (await (await farm.submit(operations())).wait(WAIT_S)).results.values()
        counts = [value if isinstance(value, int) else int(value.stdout) for value in results]
        assert len(counts) == 20
        assert max(counts) == 2

    asyncio.run(scenario())


def test_each_call_in_a_child_holds_a_slot(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(5)]
    outcomes: list[Any] = []

    async def scenario() -> None:
        kernel = Kernel(2)
        async with ProcessManager() as processes, Sandbox(processes) as sandbox:
            handler = handler_for(child("tell_and_wait"), Tools(AllowList("*", "*", "*"), processes, sandbox))
            calls = ((n, handler.function, ([str(path)], None), None, None, 0, 0.0) for n, path in enumerate(paths))
            running = asyncio.create_task(kernel.run(calls, lambda *outcome: outcomes.append(outcome)))
            pids = [int(await written(path)) for path in paths[:2]]
            assert (kernel.running, kernel.free_slots) == (2, 0)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            pids = [int(await written(path)) for path in paths[2:4]]
            assert not paths[4].exists()
            running.cancel()
            await asyncio.wait([running])
            assert not any(map(is_running, pids))

    asyncio.run(scenario())
    assert sorted(index for index, *_ in outcomes) == [0, 1]
