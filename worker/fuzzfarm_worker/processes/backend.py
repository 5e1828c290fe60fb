"""The strongest way this system has to start programs and talk to them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from fuzzfarm_worker.processes.local import LocalSpawner
from fuzzfarm_worker.processes.pipes import FastPipes, Pipes
from fuzzfarm_worker.processes.transport_pipes import TransportPipes

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzzfarm_worker.processes.spawner import Spawner

if sys.platform == "linux":
    from fuzzfarm_worker.processes.guarded import GuardedSpawner


class Backend(NamedTuple):
    """What a manager makes, once for each event loop, to start programs."""

    spawner: Callable[[], Spawner]
    pipes: Callable[[], Pipes]


LOCAL = Backend(LocalSpawner, TransportPipes if sys.platform == "win32" else FastPipes)
"""No guardian; see :mod:`fuzzfarm_worker.processes.local` for what is lost."""


def default_backend() -> Backend:
    """The guardian on Linux, otherwise :data:`LOCAL`."""
    # An interpreter embedded in another program does not know its own path and cannot start a second one.
    if sys.platform == "linux" and sys.executable:
        return Backend(GuardedSpawner, FastPipes)
    return LOCAL
