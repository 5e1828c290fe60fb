"""What a child does to itself before any code of a user runs in it: limits, and letting go of its worker's streams."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

MAX_FILE_BYTES = 1_000_000_000
"""Largest file a target may write: a runaway write must not fill the disk of a host."""

MOST_KILLABLE = "1000"
"""proc_pid_oom_score_adj(5): when memory runs out, the child dies and not the worker."""


def take_standard_input() -> int:
    """Return a descriptor of what was our standard input, which is empty from now on; output goes nowhere.

    A target that reads its input must not get what its worker sends, and one that prints must not cost its worker time.
    """
    taken = os.dup(0)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    return taken


def limit_resources(memory_bytes: int | None) -> None:
    """Set the limits of this process; they hold for everything it starts, and cannot be raised again.

    Args:
        memory_bytes: address space, or None for no limit.
    """
    with contextlib.suppress(OSError):  # a container may forbid it; the limit below still holds
        Path("/proc/self/oom_score_adj").write_text(MOST_KILLABLE, encoding="ascii")
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  # does not exist on Windows

    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    if memory_bytes is not None:
        _lower(resource.RLIMIT_AS, memory_bytes)


def _lower(which: int, value: int) -> None:
    import resource  # noqa: PLC0415  # does not exist on Windows

    _soft, hard = resource.getrlimit(which)
    allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (allowed, allowed))
