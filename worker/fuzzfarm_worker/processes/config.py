"""Settings of a started process and of the watchdog."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fuzzfarm_worker.processes.limits import NO_LIMITS, Limits

if TYPE_CHECKING:
    import os

ActivityCallback = Callable[[], float | Awaitable[float]]
"""Says when the process was last active, as ``time.time()``; sync or async."""


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """One process to start and keep."""

    command: Sequence[str]
    """Program and arguments; no shell is involved."""
    cwd: str | os.PathLike[str] | None = None
    """Working directory; None is the worker's own."""
    env: Mapping[str, str] | None = None
    """The exact environment; None hands down the worker's own."""
    timeout: float | None = 30.0
    """Inactivity limit in seconds, instead of the watchdog's ``process_timeout``; None never counts as hung."""
    auto_kill: bool = True
    """Whether the watchdog may end it; False only reports. The watchdog's own ``auto_kill`` must be on too."""
    name: str = "unknown"
    """For people: in logs, events and status."""
    activity_callback: ActivityCallback | None = None
    """Another source of activity besides output and ``update_activity``."""
    limits: Limits = NO_LIMITS
    """What the operating system enforces."""
    stdin: int | None = None
    """A descriptor, of a socket for example, that becomes its standard input as it is, instead of a pipe; the caller
    closes it after the start."""


@dataclass(frozen=True, slots=True)
class WatchdogConfig:
    """When a silent process counts as hung, and what happens then. All times in seconds."""

    check_interval: float = 1.0
    """Time between two looks at all processes."""
    process_timeout: float = 30.0
    """Inactivity after which a process is reported as hung."""
    extra_buffer: float = 5.0
    """Inactivity beyond that after which it gets SIGTERM."""
    max_hang_time: float = 60.0
    """Inactivity after which its tree gets SIGKILL."""
    auto_kill: bool = True
    """False only reports."""

    def __post_init__(self) -> None:
        if self.check_interval <= 0:
            raise ValueError("check_interval must be positive")
        if min(self.process_timeout, self.extra_buffer, self.max_hang_time) < 0:
            raise ValueError("process_timeout, extra_buffer and max_hang_time must not be negative")
