"""One zygote as its worker sees it: started, asked for children, told of their ends, stopped."""

from __future__ import annotations

import array
import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from fuzzfarm_shared.errors import CodecError, TargetError
from fuzzfarm_shared.values import pack, unpack
from fuzzfarm_worker.environment import interpreter_environment
from fuzzfarm_worker.failures import ending_name
from fuzzfarm_worker.processes import CommandResult, CommandSpec, GuardianLostError, Limits, ProcessManager
from fuzzfarm_worker.sandbox.child import ChildEnd, ForkedChild
from fuzzfarm_worker.sandbox.errors import ModuleRefusedError, ThreadsStartedError, ZygoteLostError
from fuzzfarm_worker.sandbox.frames import MAX_ANSWER_BYTES, READ_BYTES, BrokenStreamError, FrameReader, framed

if TYPE_CHECKING:
    from pathlib import Path

    from fuzzfarm_worker.processes.pipes import Pipes

LOAD_TIMEOUT_S = 60.0
"""Longest import of a module: heavy scientific stacks on a busy host need tens of seconds."""

FORK_TIMEOUT_S = 10.0
"""Longest wait for a fork, which takes milliseconds; a zygote that was stopped never answers."""

STOP_GRACE_S = 1.0
"""How long a zygote that was asked to end may take to kill its children; it needs milliseconds."""

OUTPUT_TAIL_BYTES = 16_384
"""What is kept of what an import prints."""

MAX_DESCRIPTORS = 64
"""Pidfds read at once; what does not fit would be lost."""


class ZygoteLink:
    """The worker's end of one zygote; `start` makes one.

    Attributes:
        lost: done when it is gone, with the reason as text; its children are gone then, too.
    """

    def __init__(self, control: socket.socket, process: asyncio.Task[CommandResult]) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self._control = control
        self._process = process
        self._frames = FrameReader(MAX_ANSWER_BYTES)
        self._pidfds: deque[int] = deque()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._numbers = itertools.count()
        self._forking: dict[int, tuple[ForkedChild, asyncio.Future[None]]] = {}
        self._children: dict[int, ForkedChild] = {}
        self._reading = True
        loop.add_reader(control, self._receive)
        process.add_done_callback(self._ended)

    @classmethod
    async def start(
        cls,
        processes: ProcessManager,
        module: str,
        serve: str,
        *,
        prepare: str = "",
        options: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> Self:
        """Start a zygote and wait until it has imported `module`.

        Args:
            processes: starts it, and knows it until its end.
            module: what its children are for.
            serve: "module:function" that a child runs with its socket, its cells, and what was prepared.
            prepare: "module:function" that the zygote calls with `options` after the import; None is what it gives
                when it is left out.
            options: what can travel.
            env: its environment; None: that of interpreters in general.

        Raises:
            ModuleRefusedError: when the module cannot be imported.
            TargetError: as `prepare` raises it.
            ProcessError: when no process can be started, or the guardian dies.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            path = [os.getcwd() if entry == "" else entry for entry in sys.path]
            hello = {"path": path, "module": module, "serve": serve, "prepare": prepare, "options": options or {}}
            ours.sendall(framed(pack(hello)))
            ours.setblocking(False)
            spec = CommandSpec(
                command=[sys.executable, "-P", "-m", "fuzzfarm_worker.sandbox.zygote"],
                env=interpreter_environment() if env is None else env,
                stdin=theirs.fileno(),
                max_output_bytes=OUTPUT_TAIL_BYTES,
                keep_tail_bytes=OUTPUT_TAIL_BYTES,
                grace_s=0.0,
            )
            link = cls(ours, asyncio.create_task(processes.run(spec), name=f"zygote of {module}"))
            try:
                await link._loaded(module)
            except BaseException:
                await link.stop()
                raise
        return link

    async def _loaded(self, module: str) -> None:
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                await self._ready
        except TimeoutError as exc:
            raise ModuleRefusedError(f"importing {module!r} takes more than {LOAD_TIMEOUT_S:.0f} s") from exc
        except ZygoteLostError as exc:
            self._raise_process_error()
            raise ModuleRefusedError(f"importing {module!r} ends its interpreter ({exc}): try it by itself") from exc

    def _raise_process_error(self) -> None:
        """Raise what the process manager says of a zygote that it could not start or keep."""
        if self._process.done() and not self._process.cancelled() and (error := self._process.exception()) is not None:
            raise error

    @property
    def alive(self) -> bool:
        """Whether it can be asked for children."""
        return self._reading and not self.lost.done()

    async def fork(
        self,
        output: Pipes | int,
        limits: Limits,
        options: dict[str, Any] | None = None,
        *,
        network: bool = True,
        cells_file: Path | None = None,
    ) -> ForkedChild:
        """Return a fresh child that is held to `limits`; the caller kills and closes it.

        What it prints goes through a pipe of `output`, or into the file of that descriptor, which stays the caller's.
        Cancelling kills it.

        Args:
            output: where it prints.
            limits: what it is held to.
            options: what `prepare` is called with for it, once for all children with equal ones; None: it gets what
                was prepared at the start.
            network: whether it keeps the network of the host; one that has to leave it and cannot ends with
                `confinement.NO_NAMESPACE`.
            cells_file: where its cells are kept while it lives, and should its worker die; None: only in memory.

        Raises:
            ZygoteLostError: when the zygote ends, cannot fork, or does not answer.
            TargetError: as `prepare` raises it.
            ModuleRefusedError: when `prepare` raises something else, or ends its interpreter.
            ThreadsStartedError: when it starts threads.
        """
        child, ends = await ForkedChild.prepare(output, cells_file)
        number = next(self._numbers)
        forked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._forking[number] = (child, forked)
        try:
            self._send(["fork", number, list(limits.as_tuple()), network, options], ends.descriptors())
            ends.close()
            async with asyncio.timeout(FORK_TIMEOUT_S if options is None else LOAD_TIMEOUT_S):
                await forked
        except BaseException as exc:
            self._forking.pop(number, None)
            ends.close()
            child.kill()
            child.exited.add_done_callback(lambda _: child.close())
            if number not in self._children:
                child.end(ChildEnd(0))
            if isinstance(exc, TimeoutError):
                self._process.cancel()
                raise ZygoteLostError("it did not fork in time") from exc
            raise
        return child

    async def stop(self) -> None:
        """Ask it to end, which kills its children; force it after a grace period; return when nothing is left."""
        self._stop_reading()
        self._control.close()
        try:
            await asyncio.wait([self._process], timeout=STOP_GRACE_S)
        finally:
            self._process.cancel()
        await asyncio.wait([self._process])

    def _send(self, message: list[Any], descriptors: list[int]) -> None:
        if not self.alive:
            raise ZygoteLostError(self.lost.result() if self.lost.done() else "it has closed its socket")
        try:
            socket.send_fds(self._control, [framed(pack(message))], descriptors)
        except BlockingIOError as exc:
            raise ZygoteLostError("it does not read what it is asked") from exc
        except ConnectionError as exc:
            raise ZygoteLostError("it has closed its socket") from exc

    def _receive(self) -> None:
        try:
            data, ancillary, _, _ = self._control.recvmsg(
                READ_BYTES, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS), getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            )
        except BlockingIOError:
            return
        except ConnectionError:
            data, ancillary = b"", []
        for _, _, packed in ancillary:
            descriptors = array.array("i")
            descriptors.frombytes(packed)
            self._pidfds += descriptors
        if not data:
            self._stop_reading()
            return
        try:
            for body in self._frames.feed(data):
                op, *rest = unpack(body)
                getattr(self, f"_told_{op}")(*rest)
        except (BrokenStreamError, CodecError):
            self._process.cancel()

    def _told_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _told_unusable(self, reason: str, target: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(TargetError(target, reason) if target else ModuleRefusedError(reason))

    def _told_forked(self, number: int, pid: int) -> None:
        pidfd = self._pidfds.popleft() if self._pidfds else -1
        child, forked = self._forking.pop(number, (None, None))
        if child is None or forked is None:  # nobody waits for it any more
            if pidfd >= 0:
                os.close(pidfd)
            self._ask_to_kill(number)
            return
        child.begin(pid, pidfd, lambda: self._ask_to_kill(number))
        self._children[number] = child
        if not forked.done():
            forked.set_result(None)

    def _told_failed(self, number: int, reason: str) -> None:
        _, forked = self._forking.pop(number, (None, None))
        if forked is not None and not forked.done():
            forked.set_exception(ZygoteLostError(f"it cannot fork: {reason}"))

    def _told_refused(self, number: int, reason: str, target: str) -> None:
        _, forked = self._forking.pop(number, (None, None))
        if forked is not None and not forked.done():
            forked.set_exception(TargetError(target, reason) if target else ModuleRefusedError(reason))

    def _told_threaded(self, number: int) -> None:
        _, forked = self._forking.pop(number, (None, None))
        if forked is not None and not forked.done():
            forked.set_exception(ThreadsStartedError("it starts threads"))

    def _told_exited(self, number: int, status: int, _peak_kib: int, _cpu_us: int) -> None:
        child = self._children.pop(number, None)
        if child is not None:
            child.end(ChildEnd(os.waitstatus_to_exitcode(status)))

    def _ask_to_kill(self, number: int) -> None:
        with contextlib.suppress(ZygoteLostError):
            self._send(["kill", number], [])

    def _ended(self, process: asyncio.Task[CommandResult]) -> None:
        """It is gone, and so are its children, which the guardian or the kernel has killed."""
        self._stop_reading()
        self._control.close()
        reason = _reason(process)
        self.lost.set_result(reason)
        for waiting in (self._ready, *(forked for _, forked in self._forking.values())):
            if not waiting.done():
                waiting.set_exception(ZygoteLostError(reason))
        guardian_lost = not process.cancelled() and isinstance(process.exception(), GuardianLostError)
        for child in self._children.values():
            child.end(ChildEnd(-signal.SIGKILL, reason, guardian_lost))
        self._children.clear()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self._control)
            while self._pidfds:
                os.close(self._pidfds.popleft())


def _reason(process: asyncio.Task[CommandResult]) -> str:
    if process.cancelled():
        return "it was stopped"
    if (error := process.exception()) is not None:
        return str(error)
    return ending_name(process.result().exit_code)
