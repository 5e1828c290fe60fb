"""What differs between operating systems, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzzfarm_worker.processes.guarded import GuardedSpawner

if TYPE_CHECKING:
    from fuzzfarm_worker.processes.spawner import Spawner


def default_spawner() -> Spawner:
    """The strongest spawner this system has, for the running event loop."""
    return GuardedSpawner()
