"""A sandbox for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from event_loops import LOOPS

from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.sandbox import Sandbox

Scenario = Callable[[Sandbox], Awaitable[Any]]


def in_a_sandbox(scenario: Scenario, loop: str = "asyncio") -> Any:
    """Run a scenario with a sandbox of its own, and see that it leaves no process."""

    async def run() -> Any:
        async with ProcessManager() as processes:
            async with Sandbox(processes) as sandbox:
                result = await scenario(sandbox)
            assert await processes.list_processes() == []
        return result

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(run())


@pytest.fixture
def run() -> Callable[[Scenario], Any]:
    return in_a_sandbox


@pytest.fixture(params=LOOPS)
def run_on_each_loop(request: pytest.FixtureRequest) -> Callable[[Scenario], Any]:
    return lambda scenario: in_a_sandbox(scenario, request.param)
