"""What a program uses while it runs, as far as the system tells that for the price of reading one file."""

from __future__ import annotations

import os
import sys

#: Fields behind the name of the program in /proc/PID/stat, counted from 0 (proc_pid_stat(5): minus 3).
_USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM, _RESIDENT_PAGES = 11, 12, 13, 14, 21


def running_usage(pid: int) -> tuple[int | None, float | None]:
    """Resident bytes, and CPU seconds with those of children it has waited for; None for what is not told.

    A pid that has just been reused tells of another program once; nothing but what people see comes from it.
    """
    if sys.platform != "linux":
        return None, None
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
            fields = stat.read(1024).rpartition(b")")[2].split()
    except OSError:  # it has ended
        return None, None
    ticks = sum(int(fields[field]) for field in (_USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM))
    return int(fields[_RESIDENT_PAGES]) * os.sysconf("SC_PAGE_SIZE"), ticks / os.sysconf("SC_CLK_TCK")
