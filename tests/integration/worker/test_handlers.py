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
from fuzzfarm_worker.allowlist import AllowList
from fuzzfarm_worker.failures import OperationFailedError
from fuzzfarm_worker.handlers import Tools, handler_for
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.processes.guarded import guardian_pid
from fuzzfarm_worker.sandbox import Sandbox


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
