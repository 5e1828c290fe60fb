"""Zygotes: how many there are, when they end, and what they are restarted for."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.outcomes import ErrorKind
from fuzzfarm_worker.failures import OperationFailedError
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.processes.guarded import guardian_pid
from fuzzfarm_worker.sandbox import Sandbox, pool

MODULES = ["math:isqrt", "operator:abs", "builtins:abs", "cmath:sqrt"]


async def zygotes(processes: ProcessManager) -> int:
    return (await processes.get_stats())["running"]


async def started(processes: ProcessManager) -> int:
    return (await processes.get_stats())["started"]


def test_more_targets_than_zygotes_all_get_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MOST_IDLE_ZYGOTES", 1)

    async def scenario() -> None:
        async with ProcessManager() as processes, Sandbox(processes) as sandbox:
            assert await asyncio.gather(*(sandbox.call(target, [4]) for target in MODULES)) == [2, 4, 4, 2]
            assert await sandbox.call("time:sleep", [0]) is None
            # One idle one is kept beside the new one; the others have been told to end.
            while await zygotes(processes) > 2:
                await asyncio.sleep(0.005)

    asyncio.run(scenario())


def test_idle_children_and_zygotes_end_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDLE_CHILD_S", "IDLE_ZYGOTE_S", "TIDY_S"):
        monkeypatch.setattr(pool, name, 0.01)

    async def scenario() -> None:
        async with ProcessManager() as processes, Sandbox(processes) as sandbox:
            await sandbox.call("math:isqrt", [4])
            while await zygotes(processes):
                await asyncio.sleep(0.005)
            assert await sandbox.call("math:isqrt", [4]) == 2

    asyncio.run(scenario())


def test_a_module_that_cannot_be_imported_is_not_tried_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "REFUSED_S", 60.0)

    async def refusal(sandbox: Sandbox, target: str) -> Any:
        with pytest.raises(TargetError, match="needs a license") as caught:
            await sandbox.call(target)
        return caught.value.target

    async def scenario() -> None:
        async with ProcessManager() as processes, Sandbox(processes) as sandbox:
            await asyncio.gather(*(refusal(sandbox, "broken_import:f") for _ in range(100)))
            assert await refusal(sandbox, "broken_import:g") == "broken_import:g"
            assert await started(processes) == 1

    asyncio.run(scenario())


def test_a_module_that_can_be_imported_again_is_called(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "REFUSED_S", 0.0)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "mended_import.py"

    async def scenario() -> None:
        async with ProcessManager() as processes, Sandbox(processes) as sandbox:
            module.write_text("raise RuntimeError('broken')")
            with pytest.raises(TargetError, match="broken"):
                await sandbox.call("mended_import:f")
            module.write_text("def f():\n    return 'mended'\n")
            assert await sandbox.call("mended_import:f") == "mended"

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="the guardian needs Linux")
def test_calls_that_run_when_the_guardian_dies_are_lost_with_their_worker() -> None:
    async def scenario() -> None:
        async with ProcessManager() as processes, Sandbox(processes) as sandbox:
            assert await sandbox.call("sandbox_targets:echo", [1]) == 1
            guardian = guardian_pid()
            assert guardian is not None
            with pytest.raises(OperationFailedError) as caught:
                await sandbox.call("sandbox_targets:kill_and_wait", [guardian])
            assert caught.value.error.kind is ErrorKind.WORKER_LOST
            assert await sandbox.call("sandbox_targets:echo", [2]) == 2

    asyncio.run(scenario())


def test_a_closed_sandbox_refuses_calls() -> None:
    async def scenario() -> None:
        async with ProcessManager() as processes:
            async with Sandbox(processes) as sandbox:
                pass
            with pytest.raises(RuntimeError, match="closed"):
                await sandbox.call("math:isqrt", [4])

    asyncio.run(scenario())
