"""The zygote: a process that imports a module once, and forks a child of it whenever its worker asks for one.

`python -m fuzzfarm_worker.sandbox.zygote`, with a socket as standard input. It has one thread and runs no call. It is
the subreaper of its children, so that whatever a child leaves behind, in sessions of its own too, comes back to it and
is known by the tag of that child (as in :mod:`fuzzfarm_worker.processes.guardian`, which does the same for zygotes).
What comes back with the tag of no running child is killed, so that changing the tag helps nobody.
The exit of a child is told when nothing of it is left. When the worker's end of the socket closes, all of them die.

A module that starts threads cannot be forked after its import, because threads do not survive a fork and their locks
do. Its zygote starts itself again without it, and every child imports it anew.
"""

from __future__ import annotations

import array
import asyncio  # noqa: F401 - children of async targets find it imported
import contextlib
import ctypes
import faulthandler
import functools
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.values import pack, unpack
from fuzzfarm_worker.failures import ending_name
from fuzzfarm_worker.processes.guardian import ORPHAN_WAIT_S, RETRY_S, TAG_PREFIX_SHIFT, tag_of
from fuzzfarm_worker.sandbox.cells import Cells
from fuzzfarm_worker.sandbox.confinement import Confinement, confine
from fuzzfarm_worker.sandbox.frames import MAX_REQUEST_BYTES, READ_BYTES, FrameReader, framed

COLD = "--cold"
"""Argument of a zygote whose children import the module themselves."""

TRIED, TRIED_WITH_THREADS = 86, 87
"""Exit codes of a fork that tried to prepare something: which no interpreter has by accident."""

THREADS = "it starts threads"

CHILD_TAG = 1 << 31
"""Set in the tags of children, so that none equals that of a leader of the guardian."""

MAX_DESCRIPTORS = 16
"""Descriptors read at once; a request brings three."""

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(slots=True)
class Ending:
    """A child that was reaped and may have left something behind."""

    number: int
    status: int
    usage: Any
    deadline: float


class Zygote:
    """Answers the worker, forks, and reaps."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._frames = FrameReader(MAX_REQUEST_BYTES)
        self._descriptors: deque[int] = deque()
        self._children: dict[int, tuple[int, int | None]] = {}  # by pid: the worker's number for it, and its tag
        self._ending: list[Ending] = []
        self._forks = 0
        self._own_tag = _own_tag()
        self._tags = None if self._own_tag is None else _first_tag(self._own_tag)
        self._serve: Any = None
        self._prepare: Callable[[], Any] = _nothing
        self._prepared: Any = None
        self._prepare_with: Callable[[dict[str, Any]], Any] = _nothing
        self._prepared_with: dict[bytes, Any] = {}
        self._wakeup, self._waker = os.pipe()
        self._signals: dict[int, Any] = {}
        self._poll = select.poll()
        for descriptor in (control.fileno(), self._wakeup):
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        """Import the module, then serve until the worker is gone."""
        hello = self._hello()
        sys.path[:] = hello["path"]
        self._serve = _named(hello["serve"])
        if hello["prepare"]:
            self._prepare_with = _named(hello["prepare"])
            self._prepare = functools.partial(self._prepare_with, hello["options"])
        if COLD not in sys.argv:
            self._import(hello)
        self._watch_signals()
        gc.collect()
        gc.freeze()  # what is here now is never collected: a collection in a child would copy all of it
        self._tell("ready")
        with contextlib.suppress(ConnectionError):
            while self._turn():
                pass
        for pid in self._children:
            _kill(pid)

    def _hello(self) -> dict[str, Any]:
        if COLD in sys.argv:
            return dict(unpack(bytes.fromhex(sys.argv[-1])))
        while data := self._control.recv(READ_BYTES):
            for body in self._frames.feed(data):
                return dict(unpack(body))
        os._exit(0)  # the worker is gone already

    def _import(self, hello: dict[str, Any]) -> None:
        try:
            importlib.import_module(hello["module"])
            self._prepared = self._prepare()
        except TargetError as exc:
            self._tell("unusable", str(exc), exc.target)
            os._exit(0)
        except BaseException as exc:  # noqa: BLE001 - a module may end with SystemExit, or with "skip this"
            self._tell("unusable", f"{type(exc).__name__}: {exc}", "")
            os._exit(0)
        if threading.active_count() > 1:
            self._start_again_cold(hello)

    def _start_again_cold(self, hello: dict[str, Any]) -> NoReturn:
        os.dup2(self._control.fileno(), 0)
        command = [sys.executable, "-P", "-m", "fuzzfarm_worker.sandbox.zygote", COLD, pack(hello).hex()]
        os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted

    def _watch_signals(self) -> None:
        for descriptor in (self._wakeup, self._waker):
            os.set_blocking(descriptor, False)
        # After the import, which may have set handlers of its own: children get those back.
        self._signals = {number: signal.signal(number, _ignore) for number in (signal.SIGCHLD, signal.SIGTERM)}
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def _turn(self) -> bool:
        """Wait for something to happen and deal with it; False when it is time to end."""
        ready = [descriptor for descriptor, _ in self._poll.poll(RETRY_S * 1000 if self._ending else None)]
        if self._wakeup in ready and signal.SIGTERM in os.read(self._wakeup, 4096):
            return False
        self._reap()
        self._sweep()
        return self._control.fileno() not in ready or self._receive()

    def _receive(self) -> bool:
        data, ancillary, _, _ = self._control.recvmsg(READ_BYTES, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS))
        for _, _, packed in ancillary:
            descriptors = array.array("i")
            descriptors.frombytes(packed)
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)  # a program that a target starts gets none of them
            self._descriptors += descriptors
        for body in self._frames.feed(data):
            op, number, *rest = unpack(body)
            if op == "fork":
                ends = [self._descriptors.popleft() for _ in range(3)]
                try:
                    self._fork(number, *rest, descriptors=ends)
                finally:
                    for end in ends:
                        os.close(end)
            else:
                self._kill(number)
        return bool(data)

    def _fork(
        self,
        number: int,
        limits: list[int | None],
        network: bool,
        options: dict[str, Any] | None,
        *,
        descriptors: list[int],
    ) -> None:
        prepare = self._prepare if options is None else functools.partial(self._prepare_with, options)
        try:
            prepared = self._prepared if options is None else self._prepared_for(options, prepare)
        except _UnpreparedError as exc:
            self._tell(*exc.reply(number))
            return
        self._forks += 1
        tag = None if self._tags is None else self._tags | self._forks % CHILD_TAG
        confinement = Confinement(limits, network, tag, descriptors[2])
        parent = os.getpid()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about threads of C libraries, which see to their forks themselves
                pid = os.fork()
        except OSError as exc:
            self._tell("failed", number, str(exc))
        else:
            if pid == 0:
                serving = prepare if COLD in sys.argv else lambda: prepared
                self._become_child(confinement, parent, serving, *descriptors[:2])
            self._children[pid] = (number, tag)
            self._tell_with_pidfd(number, pid)

    def _prepared_for(self, options: dict[str, Any], prepare: Callable[[], Any]) -> Any:
        """Return what children with these options get, which is prepared once, and in a fork before.

        That fork may end in our place; else the children of others would end with us.
        """
        if COLD in sys.argv:
            return None
        key = pack(options)
        if key not in self._prepared_with:
            _try(prepare)
            try:
                self._prepared_with[key] = prepare()
            except TargetError as exc:
                raise _UnpreparedError(str(exc), exc.target) from exc
            except BaseException as exc:
                raise _UnpreparedError(f"{type(exc).__name__}: {exc}") from exc
            gc.freeze()
        return self._prepared_with[key]

    def _become_child(
        self, confinement: Confinement, parent: int, prepare: Callable[[], Any], connection: int, memory: int
    ) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number, handler in self._signals.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._control.close()
            os.close(self._wakeup)
            os.close(self._waker)
            confine(confinement, parent)
            faulthandler.enable(file=2, all_threads=False)
            cells = Cells(memory)
            os.close(memory)
            self._serve(socket.socket(fileno=connection), cells, prepare())
            code = 0
        except BaseException:  # noqa: BLE001 - nothing may go on to be a second zygote
            traceback.print_exc()
        finally:
            _flush()
            os._exit(code)  # threads and exit handlers of a target must not hold it up

    def _kill(self, number: int) -> None:
        for pid, (known, _) in self._children.items():
            if known == number:
                _kill(pid)

    def _reap(self) -> None:
        """Collect children that ended, each with its group."""
        with contextlib.suppress(ChildProcessError):
            while ended := self._next_ended():
                pid, status, usage = ended
                if pid in self._children:
                    number, _ = self._children.pop(pid)
                    self._ending.append(Ending(number, status, usage, time.monotonic() + ORPHAN_WAIT_S))

    def _next_ended(self) -> tuple[int, int, Any] | None:
        """Reap one process that ended, when its group is killed: until the reap, the group's number is ours."""
        if not hasattr(os, "waitid"):  # macOS has it since Python 3.13; before, the number may be another's
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid in self._children:
                _kill_group(pid)
            return (pid, status, usage) if pid else None
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        if ended.si_pid in self._children:
            _kill_group(ended.si_pid)
        return os.wait4(ended.si_pid, 0)

    def _sweep(self) -> None:
        """Kill what ended children left behind; tell of those that have nothing left."""
        left = self._kill_orphans()
        still: list[Ending] = []
        for ending in self._ending:
            if left and time.monotonic() < ending.deadline:
                still.append(ending)
                continue
            cpu_us = int((ending.usage.ru_utime + ending.usage.ru_stime) * 1_000_000)
            self._tell("exited", ending.number, ending.status, ending.usage.ru_maxrss, cpu_us)
        self._ending = still

    def _kill_orphans(self) -> bool:
        """Kill what came back from children that are no more; returns whether there was any.

        A target may have changed its tag. So all are killed but those of running children, and those with our own tag,
        which the module has started.
        """
        if self._tags is None:
            return False
        spared = {tag for _, tag in self._children.values()} | {self._own_tag}
        return sum(_killed(pid) for pid in self._orphans() if tag_of(pid) not in spared) > 0

    def _orphans(self) -> list[int]:
        return [pid for pid in _children_of_this_process() if pid not in self._children]

    def _tell(self, *reply: Any) -> None:
        self._control.sendall(framed(pack(list(reply))))

    def _tell_with_pidfd(self, number: int, pid: int) -> None:
        message = framed(pack(["forked", number, pid]))
        if not hasattr(os, "pidfd_open"):
            self._control.sendall(message)
            return
        descriptor = os.pidfd_open(pid)
        try:
            socket.send_fds(self._control, [message], [descriptor])
        finally:
            os.close(descriptor)


def _named(name: str) -> Any:
    """Return what "module:function" names, which is ours."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _nothing(_: dict[str, Any] | None = None) -> None:
    """Prepare nothing."""


class _UnpreparedError(Exception):
    """Nothing can be prepared for a child.

    Args:
        reason: why; THREADS when that starts threads.
        target: what cannot be used, or "".
    """

    def __init__(self, reason: str, target: str = "") -> None:
        super().__init__(reason)
        self.target = target

    def reply(self, number: int) -> tuple[Any, ...]:
        """Return what the worker is told."""
        return ("threaded", number) if str(self) == THREADS else ("refused", number, str(self), self.target)


def _try(prepare: Callable[[], Any]) -> None:
    """Prepare in a fork; raises when that ends its interpreter, or starts threads, but not what `prepare` raises."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):  # it comes once more, where it can be told
            prepare()
        os._exit(TRIED if threading.active_count() == 1 else TRIED_WITH_THREADS)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == TRIED_WITH_THREADS:
        raise _UnpreparedError(THREADS)
    if code != TRIED:
        raise _UnpreparedError(f"loading it ends its interpreter ({ending_name(code)})")


def _own_tag() -> int | None:
    """The tag of this process and of what the module starts, or None where there are no tags."""
    if sys.platform != "linux" or not os.path.exists("/proc/thread-self/children"):
        return None
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        return None
    return tag_of(os.getpid())


def _first_tag(own: int) -> int:
    """What the tags of all children begin with; without a guardian there is no `own` one."""
    return max(own, 0) >> TAG_PREFIX_SHIFT << TAG_PREFIX_SHIFT | CHILD_TAG


def _children_of_this_process() -> list[int]:
    with open("/proc/thread-self/children", "rb") as file:
        return [int(pid) for pid in file.read().split()]


def _killed(orphan: int) -> bool:
    """Kill an orphan, which is not reaped yet; False for one that runs as another user."""
    try:
        os.kill(orphan, signal.SIGKILL)
    except PermissionError:
        return False
    return True


def _kill(pid: int) -> None:
    """Kill a child that is not reaped yet, and its group, which it may not have made yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
    _kill_group(pid)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _ignore(*_: Any) -> None:
    """Handle a signal by waking up: an ignored one would stay ignored in programs that a target starts."""


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def main() -> None:
    """Serve the worker at the other end of standard input."""
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    faulthandler.enable(file=2, all_threads=False)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a child that dies has printed what it printed
    Zygote(control).run()


if __name__ == "__main__":
    main()
