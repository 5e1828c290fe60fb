"""What runs on every host of a farm; its executors and processes are also usable alone, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuzzfarm_worker.processes import ProcessConfig, ProcessManager, ProcessWatchdog, WatchdogConfig

if TYPE_CHECKING:
    from fuzzfarm_worker.arq_worker import worker_settings

    WorkerSettings: dict[str, Any]

__all__ = ["ProcessConfig", "ProcessManager", "ProcessWatchdog", "WatchdogConfig", "WorkerSettings", "worker_settings"]


def __getattr__(name: str) -> Any:
    """Load arq only for those who ask for it.

    `WorkerSettings` is made when the stock command asks: `arq fuzzfarm_worker.WorkerSettings` reads the environment.
    """
    if name not in {"WorkerSettings", "worker_settings"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fuzzfarm_worker import arq_worker  # noqa: PLC0415 - see above

    return arq_worker.worker_settings if name == "worker_settings" else arq_worker.worker_settings()
