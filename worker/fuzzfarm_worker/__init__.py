"""What runs on every host of a farm; its executors and processes are also usable alone, without a server."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzzfarm_shared.futures import AsyncFuture, ExecutorShutdownError, WaitStrategy
    from fuzzfarm_worker.arq_worker import worker_settings
    from fuzzfarm_worker.executors.async_executor import AsyncExecutor
    from fuzzfarm_worker.executors.errors import OperationTimeoutError, ThreadsExhaustedError
    from fuzzfarm_worker.executors.fuzz_executor import AsyncFuzzExecutor
    from fuzzfarm_worker.processes import (
        GuardianLostError,
        ProcessConfig,
        ProcessError,
        ProcessManager,
        ProcessStartError,
        ProcessWatchdog,
        WatchdogConfig,
        execute_subprocess_async,
        execute_subprocess_streaming,
        stream_subprocess,
    )
    from fuzzfarm_worker.tools import (
        async_log_execution,
        async_track_metrics,
        run_binwalk_async,
        run_radare2_async,
        run_strings_async,
        run_yara_with_progress,
    )

    WorkerSettings: dict[str, Any]

__all__ = [
    "AsyncExecutor",
    "AsyncFuture",
    "AsyncFuzzExecutor",
    "ExecutorShutdownError",
    "GuardianLostError",
    "OperationTimeoutError",
    "ProcessConfig",
    "ProcessError",
    "ProcessManager",
    "ProcessStartError",
    "ProcessWatchdog",
    "ThreadsExhaustedError",
    "WaitStrategy",
    "WatchdogConfig",
    "WorkerSettings",
    "async_log_execution",
    "async_track_metrics",
    "execute_subprocess_async",
    "execute_subprocess_streaming",
    "run_binwalk_async",
    "run_radare2_async",
    "run_strings_async",
    "run_yara_with_progress",
    "stream_subprocess",
    "worker_settings",
]

_HOMES = {
    "AsyncExecutor": "fuzzfarm_worker.executors.async_executor",
    "AsyncFuture": "fuzzfarm_shared.futures",
    "AsyncFuzzExecutor": "fuzzfarm_worker.executors.fuzz_executor",
    "ExecutorShutdownError": "fuzzfarm_shared.futures",
    "OperationTimeoutError": "fuzzfarm_worker.executors.errors",
    "ThreadsExhaustedError": "fuzzfarm_worker.executors.errors",
    "WaitStrategy": "fuzzfarm_shared.futures",
    "async_log_execution": "fuzzfarm_worker.tools",
    "async_track_metrics": "fuzzfarm_worker.tools",
    "run_binwalk_async": "fuzzfarm_worker.tools",
    "run_radare2_async": "fuzzfarm_worker.tools",
    "run_strings_async": "fuzzfarm_worker.tools",
    "run_yara_with_progress": "fuzzfarm_worker.tools",
    "worker_settings": "fuzzfarm_worker.arq_worker",
}
"""Where each public name lives; those that are not here live in `fuzzfarm_worker.processes`."""


def __getattr__(name: str) -> Any:
    """Load what is asked for and no more: children import this package, and few users need all of it.

    `WorkerSettings` is made anew when the stock command asks for it: `arq fuzzfarm_worker.WorkerSettings` reads the
    environment.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "WorkerSettings":
        return importlib.import_module("fuzzfarm_worker.arq_worker").worker_settings()
    return getattr(importlib.import_module(_HOMES.get(name, "fuzzfarm_worker.processes")), name)
