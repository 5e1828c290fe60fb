"""What becomes of children when a worker, or its guardian, is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from children import SLEEPS, STARTS_A_TREE_THAT_SCATTERS, all_end, is_running, watched

from fuzzfarm_worker.processes import CommandSpec, GuardianLostError, ProcessConfig, ProcessManager
from fuzzfarm_worker.processes.guarded import guardian_pid

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guardian needs Linux")

#: A worker that starts three scattering trees and a command, and prints the pids of all of them and of its guardian.
WORKER = f"""
import asyncio, os, sys
from fuzzfarm_worker.processes import CommandSpec, ProcessConfig, ProcessManager
from fuzzfarm_worker.processes.guarded import guardian_pid

async def main():
    manager = ProcessManager()
    pids = []
    for _ in range(3):
        process = await manager.start_process(ProcessConfig(command={STARTS_A_TREE_THAT_SCATTERS!r}))
        pids += [process.pid, *map(int, (await process.stdout.readline()).split())]
    task = asyncio.create_task(manager.run(CommandSpec(command=["sleep", "1000"])))
    while len(await manager.list_processes()) < 4:
        await asyncio.sleep(0.001)
    pids.append((await manager.list_processes())[-1]["pid"])
    pids.append(guardian_pid())
    if "forked" in sys.argv:
        copy = os.fork()
        if copy == 0:
            signal_forever()
        pids.append(copy)
    print(*pids, flush=True)
    await task

def signal_forever():
    import signal
    while True:
        signal.pause()

asyncio.run(main())
"""


def worker_and_pids(*arguments: str) -> tuple[subprocess.Popen[bytes], list[int]]:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    pids = [int(pid) for pid in worker.stdout.readline().split()]
    worker.stdout.close()
    assert all(is_running(pid) for pid in pids)
    return worker, pids


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_nothing_outlives_a_worker_that_is_killed(signum):
    worker, pids = worker_and_pids()
    assert len(pids) == 3 * 4 + 2
    with watched(pids) as alive:
        worker.send_signal(signum)
        assert worker.wait() == -signum
        assert all_end(alive)


def test_a_forked_copy_of_the_worker_does_not_keep_children_alive():
    worker, pids = worker_and_pids("forked")
    *children, copy = pids
    try:
        with watched(children) as alive:
            worker.kill()
            worker.wait()
            assert all_end(alive)
        assert is_running(copy)
    finally:
        os.kill(copy, signal.SIGKILL)


def test_a_killed_guardian_takes_all_children_along_and_is_replaced():
    async def main() -> None:
        async with ProcessManager() as manager:
            process = await manager.start_process(ProcessConfig(command=STARTS_A_TREE_THAT_SCATTERS))
            scattered = [int(pid) for pid in (await process.stdout.readline()).split()]
            command = asyncio.create_task(manager.run(CommandSpec(command=SLEEPS)))
            await asyncio.sleep(0)
            first = guardian_pid()
            assert first is not None
            with watched([process.pid, *scattered]) as alive:
                assert len(alive) == 4
                os.kill(first, signal.SIGKILL)
                with pytest.raises(GuardianLostError):
                    await command
                assert all_end(alive)
            assert await process.wait() == -signal.SIGKILL
            assert (await manager.run(CommandSpec(command=["echo", "again"]))).stdout == b"again\n"
            assert guardian_pid() not in (None, first)

    asyncio.run(main())


def test_a_terminated_guardian_kills_everything_itself():
    async def main() -> None:
        async with ProcessManager() as manager:
            process = await manager.start_process(ProcessConfig(command=STARTS_A_TREE_THAT_SCATTERS))
            scattered = [int(pid) for pid in (await process.stdout.readline()).split()]
            guardian = guardian_pid()
            assert guardian is not None
            with watched([process.pid, *scattered]) as alive:
                os.kill(guardian, signal.SIGTERM)
                assert all_end(alive)
            assert await process.wait() == -signal.SIGKILL

    asyncio.run(main())


def test_a_worker_that_ends_normally_leaves_no_guardian():
    code = (
        "import asyncio\nfrom fuzzfarm_worker.processes import execute_subprocess_async\n"
        "from fuzzfarm_worker.processes.guarded import guardian_pid\n"
        "asyncio.run(execute_subprocess_async(['true']))\nprint(guardian_pid(), flush=True)\ninput()"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin is not None
    assert worker.stdout is not None
    with worker, watched([int(worker.stdout.readline())]) as alive:
        assert len(alive) == 1
        worker.stdin.write(b"\n")
        worker.stdin.close()
        assert worker.wait() == 0
        assert all_end(alive, within_s=1)


REUSES_A_PID = """
import asyncio, subprocess, sys
from fuzzfarm_worker.processes import Backend, LOCAL, ProcessConfig, ProcessManager
from fuzzfarm_worker.processes.backend import default_backend

def next_pid(pid):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))

async def main(backend):
    async with ProcessManager(backend=backend) as manager:
        ours = await manager.start_process(ProcessConfig(command=["true"]))
        await ours.wait()
        next_pid(ours.pid)
        stranger = subprocess.Popen(["sleep", "1000"])
        assert stranger.pid == ours.pid, "the pid was not reused"
        ours.terminate(); ours.kill(); ours.send_signal(9)
        assert await manager.stop_process(ours.pid, force=True)
        await manager.send_timeout_signal_to_all("force")
        # One more full round trip, so that anything sent has arrived.
        again = await manager.start_process(ProcessConfig(command=["true"]))
        await again.wait()
        survived = stranger.poll() is None
        stranger.kill(); stranger.wait()
        print(survived, flush=True)

asyncio.run(main({"guardian": default_backend(), "local": LOCAL}[sys.argv[1]]))
"""


@pytest.mark.parametrize("backend", ["guardian", "local"])
def test_a_reused_pid_is_never_signalled(backend):
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    try:
        allowed = subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("no PID namespaces here")
    command = [*namespace, sys.executable, "-c", REUSES_A_PID, backend]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert (result.stdout, result.returncode) == ("True\n", 0), result.stderr
