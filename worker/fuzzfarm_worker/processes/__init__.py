"""Child processes that can be trusted with anything: bounded, watched, and gone when they should be."""

from __future__ import annotations

from fuzzfarm_worker.processes.backend import LOCAL, Backend
from fuzzfarm_worker.processes.command import CommandResult, CommandSpec
from fuzzfarm_worker.processes.config import ProcessConfig, WatchdogConfig
from fuzzfarm_worker.processes.errors import GuardianLostError, ProcessError, ProcessStartError, UnkillableError
from fuzzfarm_worker.processes.events import ProcessEvent, ProcessEventKind
from fuzzfarm_worker.processes.limits import Limits
from fuzzfarm_worker.processes.manager import ProcessManager
from fuzzfarm_worker.processes.oneshot import (
    execute_subprocess_async,
    execute_subprocess_streaming,
    stream_subprocess,
)
from fuzzfarm_worker.processes.process import ManagedProcess
from fuzzfarm_worker.processes.stream import OutputPiece, OutputStream
from fuzzfarm_worker.processes.watchdog import ProcessWatchdog

__all__ = [
    "LOCAL",
    "Backend",
    "CommandResult",
    "CommandSpec",
    "GuardianLostError",
    "Limits",
    "ManagedProcess",
    "OutputPiece",
    "OutputStream",
    "ProcessConfig",
    "ProcessError",
    "ProcessEvent",
    "ProcessEventKind",
    "ProcessManager",
    "ProcessStartError",
    "ProcessWatchdog",
    "UnkillableError",
    "WatchdogConfig",
    "execute_subprocess_async",
    "execute_subprocess_streaming",
    "stream_subprocess",
]
