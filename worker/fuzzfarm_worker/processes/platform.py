"""What differs between operating systems, in one place: how a program is started, watched, asked and killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol, TypedDict

from fuzzfarm_worker.processes.spawner import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

#: Where nothing tells of an exit, it is polled for: this often at first, and ever more rarely up to the second value.
POLL_FIRST_S, POLL_MOST_S = 0.001, 0.05
#: SIGKILL, by number because Windows has no such name.
FORCE = 9


class PopenOptions(TypedDict, total=False):
    """The options of :class:`subprocess.Popen` in which systems differ."""

    process_group: int
    creationflags: int


class Platform(Protocol):
    """How programs are handled without a guardian."""

    def popen_options(self) -> PopenOptions:
        """Options that put a program into a group of its own."""
        ...

    def watch(self, process: subprocess.Popen[bytes], on_exit: Callable[[], None]) -> None:
        """Call ``on_exit`` in the running event loop once the program has ended; it is not reaped yet."""
        ...

    def signal(self, process: subprocess.Popen[bytes], signum: int) -> None:
        """Signal the group of a program that is not reaped yet."""
        ...

    def kill_tree(self, process: subprocess.Popen[bytes]) -> None:
        """End a program that is not reaped yet, and whatever of its tree the system lets us reach."""
        ...

    def collect(self, process: subprocess.Popen[bytes]) -> Exit:
        """Reap a program that has ended."""
        ...


class PosixPlatform:
    """Process groups and pidfds on Linux, kqueue on macOS and the BSDs."""

    def popen_options(self) -> PopenOptions:
        """A group of its own, because that is what signals are sent to."""
        return {"process_group": 0}

    def watch(self, process: subprocess.Popen[bytes], on_exit: Callable[[], None]) -> None:
        """Wait on a descriptor that becomes readable; the pid stays ours until :meth:`collect`."""
        if sys.platform == "linux":
            watch_descriptor(os.pidfd_open(process.pid), on_exit)
        elif sys.platform == "darwin":
            watch_kqueue(process.pid, on_exit)
        else:
            poll_for_exit(lambda: process.poll() is not None, on_exit)

    def signal(self, process: subprocess.Popen[bytes], signum: int) -> None:
        """Signal the group; its number cannot have been reused, because the leader is not reaped."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signum)

    def kill_tree(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to the group; programs that left it are out of reach without a guardian."""
        self.signal(process, FORCE)

    def collect(self, process: subprocess.Popen[bytes]) -> Exit:
        """Kill what is left of the group while its number is ours, then reap the leader."""
        self.kill_tree(process)
        if process.returncode is not None:
            return Exit(process.returncode, None, None)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peak_bytes = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
        return Exit(process.returncode, peak_bytes, usage.ru_utime + usage.ru_stime)


class WindowsPlatform:
    """Process groups for CTRL_BREAK_EVENT; TerminateProcess for the rest."""

    #: subprocess.CREATE_NEW_PROCESS_GROUP, which only Windows defines.
    NEW_GROUP = 0x00000200
    #: signal.CTRL_BREAK_EVENT, likewise. CTRL_C_EVENT cannot be sent to a group.
    CTRL_BREAK = 1

    def popen_options(self) -> PopenOptions:
        """A new group, without which CTRL_BREAK_EVENT would reach the worker too."""
        return {"creationflags": self.NEW_GROUP}

    def watch(self, process: subprocess.Popen[bytes], on_exit: Callable[[], None]) -> None:
        """Poll the handle, which stays valid as long as the Popen does."""
        poll_for_exit(lambda: process.poll() is not None, on_exit)

    def signal(self, process: subprocess.Popen[bytes], signum: int) -> None:
        """CTRL_BREAK_EVENT for every signal a program may handle, TerminateProcess for SIGKILL."""
        if signum == FORCE:
            self.kill_tree(process)
            return
        with contextlib.suppress(OSError):  # no console is shared with it: it cannot be asked, only killed
            process.send_signal(self.CTRL_BREAK)

    def kill_tree(self, process: subprocess.Popen[bytes]) -> None:
        """End the program and, by taskkill, the children it has at this moment."""
        with contextlib.suppress(OSError):  # a Windows without taskkill: the program alone is ended
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)  # noqa: S607
        with contextlib.suppress(OSError):  # taskkill was faster
            process.kill()

    def collect(self, process: subprocess.Popen[bytes]) -> Exit:
        """The exit code; Windows keeps no usage figures we can read."""
        return Exit(process.wait(), None, None)


def watch_descriptor(fd: int, on_exit: Callable[[], None]) -> None:
    """Call ``on_exit`` once when ``fd`` becomes readable, and close it."""
    loop = asyncio.get_running_loop()

    def ready() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        on_exit()

    loop.add_reader(fd, ready)


def watch_kqueue(pid: int, on_exit: Callable[[], None]) -> None:
    """Call ``on_exit`` once when the kernel reports the exit of ``pid`` (kqueue(2), EVFILT_PROC)."""
    if sys.platform == "darwin":
        loop = asyncio.get_running_loop()
        queue = select.kqueue()
        interest = select.kevent(
            pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT
        )
        try:
            queue.control([interest], 0)
        except ProcessLookupError:  # it has ended already
            queue.close()
            loop.call_soon(on_exit)
            return

        def ready() -> None:
            loop.remove_reader(queue.fileno())
            queue.close()
            on_exit()

        loop.add_reader(queue.fileno(), ready)


def poll_for_exit(has_ended: Callable[[], bool], on_exit: Callable[[], None], wait_s: float = POLL_FIRST_S) -> None:
    """Call ``on_exit`` once ``has_ended`` says so."""
    if has_ended():
        on_exit()
        return
    loop = asyncio.get_running_loop()
    loop.call_later(wait_s, poll_for_exit, has_ended, on_exit, min(wait_s * 2, POLL_MOST_S))


def current_platform() -> Platform:
    """The platform of this interpreter."""
    return WindowsPlatform() if sys.platform == "win32" else PosixPlatform()
