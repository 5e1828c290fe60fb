"""Handlers without a server: what their children's guardian does to them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzzfarm import CallOperation, ErrorKind, SubprocessJob
from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.limits import (
    MAX_CPU_S,
    MAX_LIMIT,
    MIN_CPU_S,
    MIN_OPEN_FILES,
    MIN_PROCESSES,
    MIN_PROGRAM_MEMORY_BYTES,
)
from fuzzfarm_shared.operations import ProcessLimits
from fuzzfarm_worker.allowlist import AllowList
from fuzzfarm_worker.failures import OperationFailedError
from fuzzfarm_worker.handlers import RefusedError, Tools, handler_for
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.processes.guarded import guardian_pid
from fuzzfarm_worker.sandbox import Sandbox

LEAST = ProcessLimits(
    memory_bytes=MIN_PROGRAM_MEMORY_BYTES,
    cpu_s=MIN_CPU_S,
    file_size_bytes=0,
    open_files=MIN_OPEN_FILES,
    processes=MIN_PROCESSES,
)
MOST = ProcessLimits(
    memory_bytes=MAX_LIMIT,
    cpu_s=MAX_CPU_S,
    file_size_bytes=MAX_LIMIT,
    open_files=MAX_LIMIT,
    processes=MAX_LIMIT,
)


async def result_of(job: SubprocessJob) -> Any:
    """Run a job as a worker does that allows everything."""
    async with ProcessManager() as processes, Sandbox(processes) as sandbox:
        handler = handler_for(job, Tools(AllowList("*", "*", "*"), processes, sandbox))
        args, _ = handler.arguments(job.command, job.stdin)
        return await handler.function(lambda _: None, *args)


@pytest.mark.parametrize("limits", [LEAST, MOST], ids=["least", "most"])
def test_a_program_runs_under_all_limits_that_a_job_may_have(limits: ProcessLimits) -> None:
    result = asyncio.run(result_of(SubprocessJob(command=["printf", "fine"], limits=limits)))
    assert (result.exit_code, result.stdout) == (0, "fine")


def test_options_that_nobody_foresaw_are_a_refusal() -> None:
    unchecked = SubprocessJob(command=["true"]).model_copy(update={"limits": ProcessLimits.model_construct(cpu_s=-1)})
    with pytest.raises(TargetError, match=r"cannot prepare .*: limit cpu_s must be 1 to"):
        asyncio.run(result_of(unchecked))


def test_a_folder_is_looked_up_for_each_job_because_those_before_it_may_have_moved_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "moved").mkdir(parents=True)
    (root / "work").mkdir()
    job = SubprocessJob(command=["pwd"], cwd=f"{root}/work")

    async def scenario() -> None:
        async with ProcessManager() as processes, Sandbox(processes) as sandbox:
            handler = handler_for(job, Tools(AllowList("*", "*", [str(root)]), processes, sandbox))
            args, _ = handler.arguments(["pwd"], None)
            assert (await handler.function(lambda _: None, *args)).stdout.strip() == f"{root}/work"
            (root / "work").rmdir()
            (root / "work").symlink_to(root / "moved")
            assert (await handler.function(lambda _: None, *args)).stdout.strip() == f"{root}/moved"
            (root / "work").unlink()
            (root / "work").symlink_to("/etc")
            with pytest.raises(RefusedError, match="outside of this worker's roots"):
                await handler.function(lambda _: None, *args)

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="the guardian needs Linux")
@pytest.mark.parametrize("kind", ["call", "job"])
def test_an_operation_whose_guardian_dies_is_lost_with_its_worker(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "it runs"
    operation: CallOperation | SubprocessJob
    left: list[Any]
    if kind == "call":
        operation = CallOperation(target="sandbox_targets:tell_and_wait", isolation="child", timeout_s=None)
        left = [str(path)]
    else:
        operation = SubprocessJob(command=["-"], timeout_s=None)
        left = ["sh", "-c", 'touch "$0"; exec sleep 60', str(path)]

    async def scenario() -> None:
        async with ProcessManager() as processes, Sandbox(processes) as sandbox:
            handler = handler_for(operation, Tools(AllowList("*", "*", "*"), processes, sandbox))
            args, _ = handler.arguments(left, None)
            told = [lambda _: None] if handler.tells else []
            running = asyncio.create_task(handler.function(*told, *args))
            while not path.exists():
                await asyncio.sleep(0.005)
            guardian = guardian_pid()
            assert guardian is not None
            os.kill(guardian, signal.SIGKILL)
            with pytest.raises(OperationFailedError) as caught:
                await running
            assert caught.value.error.kind is ErrorKind.WORKER_LOST

    asyncio.run(scenario())
