"""What a child does to itself before any code of a user runs in it: limits, and dying with its worker."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

MAX_FILE_BYTES = 1_000_000_000
"""Largest file a target may write: a runaway write must not fill the disk of a host."""

PR_SET_PDEATHSIG = 1
"""prctl(2)."""

MOST_KILLABLE = "1000"
"""proc_pid_oom_score_adj(5): when memory runs out, the child dies and not the worker."""


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; elsewhere the end of the socket does that."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415  # only here: a target should find the process as small as it can be

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)


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
