"""CPU seconds of one example: a limit that a child moves on as it runs many, and a process of one example keeps."""

from __future__ import annotations

import faulthandler
import math
import resource
import signal
import sys
import time

from fuzzfarm_worker.processes import Limits
from fuzzfarm_worker.processes.limited import limit_self

_LIMITED_CLOCK = -8
"""What Linux compares with RLIMIT_CPU: CPUCLOCK_PROF of this process (clock_getcpuclockid(3), posix-timers.h).

Ticks count there, so that `time.process_time` runs apart from it."""


class CpuLimit:
    """Holds each example that this process runs to so many CPU seconds, of all its threads, and up to one more.

    Beyond them the kernel sends SIGXCPU: it writes the Python stack and ends the process, unless the target handles it.
    The hard limit stays as it is, because it could not be moved on: a target that means to can lift this one.

    Args:
        cpu_s: how many.
    """

    def __init__(self, cpu_s: int) -> None:
        self._cpu_s = cpu_s
        self._hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        faulthandler.register(signal.SIGXCPU, file=2, all_threads=False, chain=True)

    def begin(self) -> None:
        """Count from now: an example begins."""
        soft = math.ceil(_used_s()) + self._cpu_s
        if self._hard != resource.RLIM_INFINITY:
            soft = min(soft, self._hard)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, self._hard))

    def keep(self) -> None:
        """Hold this process, a fresh fork that runs one example, and what it becomes, for good."""
        limit_self(list(Limits(cpu_s=self._cpu_s).as_tuple()))


def _used_s() -> float:
    return time.clock_gettime(_LIMITED_CLOCK) if sys.platform == "linux" else time.process_time()
