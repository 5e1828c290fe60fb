from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fuzzfarm_worker.processes import LOCAL, Backend
from fuzzfarm_worker.processes.backend import default_backend
from fuzzfarm_worker.processes.local import LocalSpawner
from fuzzfarm_worker.processes.transport_pipes import TransportPipes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

BACKENDS = {
    "guardian": default_backend(),
    "local": LOCAL,
    "local-with-transports": Backend(LocalSpawner, TransportPipes),
}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]


def uvloop_run(main: Coroutine[Any, Any, Any]) -> Any:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@pytest.fixture(params=["asyncio", "uvloop"])
def run_loop(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    return asyncio.run if request.param == "asyncio" or sys.platform == "win32" else uvloop_run
