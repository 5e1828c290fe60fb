"""Handlers without a server: what their children's guardian does to them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest
from children import SLEEPS

from fuzzfarm import CallOperation, ErrorKind, SubprocessJob
from fuzzfarm_worker.allowlist import AllowList
from fuzzfarm_worker.failures import OperationFailedError
from fuzzfarm_worker.handlers import Tools, handler_for
from fuzzfarm_worker.processes import ProcessConfig, ProcessManager
from fuzzfarm_worker.processes.guarded import guardian_pid
from fuzzfarm_worker.sandbox import Sandbox


@pytest.mark.skipif(sys.platform != "linux", reason="the guardian needs Linux")
@pytest.mark.parametrize(
    ("operation", "left"),
    [
        (CallOperation(target="time:sleep", isolation="child"), [60]),
        (SubprocessJob(command=["sleep", "60"]), ["sleep", "60"]),
    ],
    ids=["call", "job"],
)
def test_an_operation_whose_guardian_dies_is_lost_with_its_worker(operation: Any, left: list[Any]) -> None:
    async def scenario() -> None:
        async with ProcessManager() as processes, Sandbox(processes) as sandbox:
            await processes.start_process(ProcessConfig(command=SLEEPS))
            handler = handler_for(operation, Tools(AllowList("*", "*", "*"), processes, sandbox))
            args, _ = handler.arguments(left, None)
            running = asyncio.create_task(handler.function(*args))
            await asyncio.sleep(0)
            guardian = guardian_pid()
            assert guardian is not None
            os.kill(guardian, signal.SIGKILL)
            with pytest.raises(OperationFailedError) as caught:
                await running
            assert caught.value.error.kind is ErrorKind.WORKER_LOST

    asyncio.run(scenario())
