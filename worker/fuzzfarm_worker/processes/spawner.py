"""What starts programs: the seam between the manager and the guardian, or a platform without one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from fuzzfarm_worker.processes.limits import Limits


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """One program to start, checked, with the child's ends of its pipes. The caller closes them afterwards."""

    command: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    stdin: int
    stdout: int
    stderr: int
    limits: Limits
    folder: int | None = None
    """The working directory, opened: it stays the same one, whatever its name leads to meanwhile."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a program and its tree ended."""

    returncode: int
    """As in :mod:`subprocess`: negative is the signal."""
    peak_memory_bytes: int | None
    cpu_time_s: float | None
    survivors: int = 0
    """Processes of its tree that SIGKILL has not removed in time (uninterruptible sleep, or another user's)."""


class Child(Protocol):
    """A started program. Its exit is known only once its whole tree is gone."""

    @property
    def pid(self) -> int:
        """Process id of the leader; its group has the same number where there are groups."""
        ...

    @property
    def exited(self) -> asyncio.Future[Exit]:
        """Done when the tree is gone. Await it through :func:`asyncio.shield` or :func:`asyncio.wait`."""
        ...

    def signal(self, signum: int) -> None:
        """Signal the leader's group; nothing happens when the leader has ended."""
        ...

    def kill_tree(self) -> None:
        """SIGKILL everything the program started, in other sessions too."""
        ...


class Spawner(Protocol):
    """Starts programs for one event loop."""

    async def spawn(self, request: SpawnRequest) -> Child:
        """Start a program.

        Cancellation while it starts kills what was started.

        Raises:
            ProcessStartError: It could not be started.
        """
        ...

    @property
    def closed(self) -> bool:
        """It can start nothing more: it was closed, or its helper died."""
        ...

    def close(self) -> None:
        """Kill what is left, without waiting, and release what the spawner holds."""
        ...
