"""How long a child was ready to run while other processes had the processor: that time is no hang of its example."""

from __future__ import annotations

from pathlib import Path


def waited_for_processor_ns(pid: int) -> int:
    """Return nanoseconds that the main thread of `pid` has waited on a run queue; 0 where the system does not tell.

    The second field of /proc/PID/schedstat: https://docs.kernel.org/scheduler/sched-stats.html.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
