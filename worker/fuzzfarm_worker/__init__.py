"""What runs on every host of a farm; its executors and processes are also usable alone, without a server."""

from __future__ import annotations

from typing import Any

from fuzzfarm_worker.processes import ProcessConfig, ProcessManager, ProcessWatchdog, WatchdogConfig

__all__ = ["ProcessConfig", "ProcessManager", "ProcessWatchdog", "WatchdogConfig", "WorkerSettings", "worker_settings"]


def __getattr__(name: str) -> Any:
    """Make `WorkerSettings` when the stock command asks for it: `arq fuzzfarm_worker.WorkerSettings`."""
    if name == "worker_settings":
        from fuzzfarm_worker.arq_worker import worker_settings  # noqa: PLC0415 - loads arq, which library users lack

        return worker_settings
    if name == "WorkerSettings":
        from fuzzfarm_worker.arq_worker import worker_settings  # noqa: PLC0415 - as above; reads the environment

        return worker_settings()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
