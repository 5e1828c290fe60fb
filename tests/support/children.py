"""Programs for tests, named by what they do, and ways to see whether they are gone."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def python(code: str) -> list[str]:
    """A Python one-liner as a command."""
    return [sys.executable, "-I", "-S", "-c", code]


SLEEPS = ["sleep", "1000"]
IGNORES_SIGTERM = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"]
FLOODS_BOTH_PIPES = python(
    "import os\nfor fd, byte in ((2, b'e'), (1, b'o')):\n  data = byte * (1 << 20)\n"
    "  while data: data = data[os.write(fd, data):]"
)

#: Prints the pids of a child in its group, a grandchild in a session of its own and a double-forked daemon, then stays.
#: None of them holds on to the pipes, so only the pids tell that they live.
STARTS_A_TREE_THAT_SCATTERS = python(
    """
import os, signal, sys, time
def stay():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for fd in (0, 1, 2):
        os.close(fd)
    time.sleep(1000)
read, write = os.pipe()
def report():
    os.write(write, b"%d " % os.getpid())
if os.fork() == 0:
    report(); stay()
if os.fork() == 0:
    os.setsid(); report(); stay()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid(); os.chdir("/"); report(); stay()
    os._exit(0)
pids = b""
while pids.count(b" ") < 3:
    pids += os.read(read, 100)
print(pids.decode(), flush=True)
time.sleep(1000)
"""
)


@contextlib.contextmanager
def watched(pids: Iterable[int]) -> Iterator[list[int]]:
    """Descriptors that become readable when the processes end; a pid that is gone already has none."""
    with contextlib.ExitStack() as stack:
        fds = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                stack.callback(os.close, fd)
                fds.append(fd)
        yield fds


def all_end(fds: Iterable[int], within_s: float = 10.0) -> bool:
    """Whether all watched processes end in time."""
    poll = select.poll()
    waiting = set(fds)
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + within_s
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left_s * 1000):
            poll.unregister(fd)
            waiting.discard(fd)
    return not waiting


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False
