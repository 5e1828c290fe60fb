"""What a child does to itself right after the fork, before any call: its session, its streams, its limits."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from dataclasses import dataclass

from fuzzfarm_worker.processes.limited import limit_self
from fuzzfarm_worker.sandbox.network import leave_network

PR_SET_PDEATHSIG = 1
"""prctl(2)."""

RLIMIT_LOCKS = 10
"""Not enforced since Linux 2.4.25 (getrlimit(2)), but handed down through fork and exec: it holds the tag."""

SPARE_FILES = 1
"""Telling a failure reads source files, one at a time, and the target may have opened all that it could."""

NO_NAMESPACE = 88
"""Exit code of a child that could not leave the network, which no interpreter has by accident."""

MOST_KILLABLE = b"1000"
"""proc_pid_oom_score_adj(5): when memory runs out, the child dies and not the worker."""

_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a child is held to.

    Attributes:
        limits: in the order of `Limits`.
        network: whether it keeps the network of the host.
        tag: marks whatever descends from the child; None where the system has no tags.
        output: descriptor of what it prints.
    """

    limits: list[int | None]
    network: bool
    tag: int | None
    output: int


def confine(confinement: Confinement, parent: int) -> None:
    """Confine this process, a fresh fork of `parent`; it cannot be undone.

    A process that has to leave the network and cannot ends here, with NO_NAMESPACE.
    """
    if not confinement.network:
        _leave_network_or_end()
    os.setsid()
    die_with_parent(parent)
    _redirect(confinement.output)
    if confinement.tag is not None:
        resource.setrlimit(RLIMIT_LOCKS, (confinement.tag, resource.getrlimit(RLIMIT_LOCKS)[1]))
    _be_killed_first()
    limit_self(confinement.limits, spare_files=SPARE_FILES)


def _leave_network_or_end() -> None:
    try:
        leave_network()
    except OSError:
        os._exit(NO_NAMESPACE)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; elsewhere the end of the socket does that."""
    if sys.platform != "linux":
        return
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)


def _be_killed_first() -> None:
    # A container may forbid it, and other systems have no such file; the limits still hold. Not through a file object:
    # in a fresh fork that takes a tenth of all there is to do.
    with contextlib.suppress(OSError):
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(descriptor, MOST_KILLABLE)
        os.close(descriptor)


def _redirect(output: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for descriptor in (null, output):
        if descriptor > 2:
            os.close(descriptor)
