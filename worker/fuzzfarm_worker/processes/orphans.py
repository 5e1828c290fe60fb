"""What a killed guardian leaves behind, found and killed by the tags it gave to everything it started."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from fuzzfarm_worker.processes.guardian import TAG_PREFIX_SHIFT, tag_of

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A process may fork between being listed and being killed; each round catches one generation of such children.
MOST_ROUNDS = 20


def kill_tagged(prefix: int) -> int:
    """SIGKILL every process that a guardian with this tag prefix started, and all their descendants.

    Returns:
        How many were killed.
    """
    killed = 0
    for _ in range(MOST_ROUNDS):
        found = sum(kill_if_tagged(pid, prefix) for pid in all_pids() if has_prefix(pid, prefix))
        if not found:
            break
        killed += found
    return killed


def kill_if_tagged(pid: int, prefix: int) -> bool:
    """Kill one process through a pidfd, so that a reused pid is never signalled."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Asked again with the pidfd open: now the tag is surely that of the process behind it, or of nobody.
        if not has_prefix(pid, prefix):
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        return True
    finally:
        os.close(fd)


def has_prefix(pid: int, prefix: int) -> bool:
    """Whether a living process descends from the guardian with this prefix."""
    return tag_of(pid) >> TAG_PREFIX_SHIFT == prefix


def all_pids() -> Iterator[int]:
    """Every process there is."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())
