"""The worker's side of the guardian: one process per worker, one channel per event loop."""

from __future__ import annotations

import array
import asyncio
import atexit
import contextlib
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

from fuzzfarm_worker.processes import guardian
from fuzzfarm_worker.processes.errors import GuardianLostError, ProcessStartError
from fuzzfarm_worker.processes.limits import Limits
from fuzzfarm_worker.processes.orphans import kill_tagged
from fuzzfarm_worker.processes.spawner import Exit, SpawnRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Tags must stay below 2^63, and leave 32 bits for the number of a leader.
PREFIX_BITS = 24
#: How long the interpreter waits at its end for the guardian to kill what is left; it normally takes milliseconds.
GUARDIAN_EXIT_S = 5.0


class GuardianProcess:
    """The one guardian of this worker process; started by the first channel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._prefix = 0
        atexit.register(self.stop)
        # A forked copy of the worker must neither use nor keep alive its parent's guardian.
        os.register_at_fork(after_in_child=self._forget)

    @property
    def pid(self) -> int | None:
        """Process id of the running guardian."""
        return self._process.pid if self._process is not None else None

    def connect(self) -> socket.socket:
        """A new channel; starts the guardian when there is none or when the last one died."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            try:
                self._introduce(theirs)
            except (BrokenPipeError, ConnectionError):
                self._discard()
                kill_tagged(self._prefix)
                self._introduce(theirs)
        ours.setblocking(False)
        return ours

    def _introduce(self, channel: socket.socket) -> None:
        if self._control is None:
            self._start()
        assert self._control is not None  # noqa: S101 - for the type checker
        header = guardian.REQUEST.pack(guardian.CONNECT, 0, 0, 0, 0, *_pack_limits(None))
        socket.send_fds(self._control, [header], [channel.fileno()])

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._prefix = secrets.randbits(PREFIX_BITS) | 1
        with theirs:
            # Its own session, so that Ctrl-C in a terminal reaches the worker alone, which then stops in order.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guardian.__file__, str(theirs.fileno()), str(self._prefix)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        self._control = ours

    def stop(self) -> None:
        """Close the control socket and wait, bounded, until the guardian has killed all that is left."""
        with self._lock:
            self._discard()

    def killed(self, pid: int | None) -> None:
        """Somebody killed this guardian: kill what it leaves behind, by the tags that all of it carries."""
        with self._lock:
            if pid == self.pid:  # otherwise another channel has noticed first
                self._discard()
                kill_tagged(self._prefix)

    def _discard(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GUARDIAN_EXIT_S)
        self._control = self._process = None

    def _forget(self) -> None:
        self._lock = threading.Lock()
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.returncode = 0  # not our child: keep Popen from waiting for it
        self._control = self._process = None


_GUARDIAN = GuardianProcess()


class GuardedChild:
    """A program that the guardian started."""

    __slots__ = ("_channel", "_job", "exited", "pid")

    def __init__(self, channel: GuardedSpawner, job: int, exited: asyncio.Future[Exit]) -> None:
        self._channel = channel
        self._job = job
        self.pid = 0
        self.exited = exited

    def signal(self, signum: int) -> None:
        """Signal the leader's group; the guardian ignores it when the leader has ended."""
        self._channel.send(guardian.SIGNAL, self._job, signum)

    def kill_tree(self) -> None:
        """SIGKILL everything the program started, in other sessions too."""
        self._channel.send(guardian.KILL, self._job, signal.SIGKILL)


class GuardedSpawner:
    """Starts programs through the guardian, for the event loop that first uses it (Linux)."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = _GUARDIAN.connect()
        self._guardian = _GUARDIAN.pid
        self._jobs = itertools.count(1)
        self._starting: dict[int, asyncio.Future[None]] = {}
        self._children: dict[int, GuardedChild] = {}
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._env: Mapping[str, str] | Mapping[bytes, bytes] = {}
        self._env_blob = b""
        self._closed = False
        self._loop.add_reader(self._sock, self._receive)

    async def spawn(self, request: SpawnRequest) -> GuardedChild:
        """Start a program; see :meth:`Spawner.spawn`."""
        if self._closed:
            raise GuardianLostError("the guardian's channel is closed")
        job = next(self._jobs)
        self._send_spawn(job, request)  # before it is in the tables: what cannot be sent leaves nothing there
        if self.closed:
            raise GuardianLostError("the guardian ended")
        started = self._starting[job] = self._loop.create_future()
        child = self._children[job] = GuardedChild(self, job, self._loop.create_future())
        try:
            await started
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            where = f"working directory {request.cwd!r}: " if error.filename else ""
            raise ProcessStartError(request.command, where + reason) from error
        except asyncio.CancelledError:
            child.kill_tree()
            raise
        return child

    def _send_spawn(self, job: int, request: SpawnRequest) -> None:
        argv = b"\0".join(map(os.fsencode, (request.cwd, *request.command)))
        env = self._encoded(request.env)
        header = guardian.REQUEST.pack(guardian.SPAWN, job, 0, len(argv), len(env), *_pack_limits(request.limits))
        fds = [request.stdin, request.stdout, request.stderr, *([] if request.folder is None else [request.folder])]
        if len(header) + len(argv) + len(env) <= guardian.MAX_PACKET_BYTES:
            self._send(header + argv + env, fds)
            return
        body = os.memfd_create("fuzzfarm-spawn")
        try:
            with os.fdopen(os.dup(body), "wb") as file:
                file.write(argv + env)
            self._send(header, [*fds, body])
        finally:
            os.close(body)

    def _encoded(self, env: Mapping[str, str]) -> bytes:
        # Jobs of a batch share one environment, and comparing two dicts is a tenth of encoding one. That of the
        # worker is compared by what is behind it: os.environ itself decodes on every look, a third of a start's cost.
        plain = os.environ._data if env is os.environ else env  # type: ignore[attr-defined]  # noqa: SLF001
        if plain != self._env:
            self._env_blob = b"\0".join(os.fsencode(f"{name}={value}") for name, value in env.items())
            self._env = dict(plain)  # last: a blob that cannot be made must not be taken for this one's
        return self._env_blob

    def send(self, op: int, job: int, signum: int) -> None:
        """Tell the guardian about a running job; jobs that ended are ignored on both sides."""
        if job in self._children and not self._closed:
            self._send(guardian.REQUEST.pack(op, job, signum, 0, 0, *_pack_limits(None)), [])

    def _send(self, packet: bytes, fds: Sequence[int]) -> None:
        if not self._unsent and self._try_send(packet, fds):
            return
        if not self._unsent:
            self._loop.add_writer(self._sock, self._send_rest)
        # The caller closes its descriptors when this returns.
        self._unsent.append((packet, [os.dup(fd) for fd in fds]))

    def _try_send(self, packet: bytes, fds: Sequence[int]) -> bool:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:
            self._lost()
        return True

    def _send_rest(self) -> None:
        while self._unsent:
            packet, fds = self._unsent[0]
            if not self._try_send(packet, fds):
                return
            if self._unsent:  # a lost guardian has emptied it
                self._unsent.popleft()
                _close_all(fds)
        if not self._closed:
            self._loop.remove_writer(self._sock)

    def _receive(self) -> None:
        try:
            packet = self._sock.recv(guardian.MAX_PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._lost()
        for op, job, number, status, peak_kib, cpu_us, survivors in guardian.REPLY.iter_unpack(packet):
            if op == guardian.EXITED:
                exit_ = Exit(os.waitstatus_to_exitcode(status), peak_kib * 1024, cpu_us / 1_000_000, survivors)
                _resolve(self._children.pop(job).exited, exit_)
            elif op == guardian.STARTED:
                self._children[job].pid = number
                _resolve(self._starting.pop(job), None)
            else:
                where = "cwd" if status == guardian.STAGE_CWD else None
                del self._children[job]
                _reject(self._starting.pop(job), OSError(number, os.strerror(number), where))

    def _lost(self) -> None:
        """The guardian died: its children are gone or killed here, and nobody can know their exit codes."""
        self._release()
        _GUARDIAN.killed(self._guardian)
        self._fail_all("its guardian ended")

    def _fail_all(self, reason: str) -> None:
        for started in self._starting.values():
            _reject(started, GuardianLostError(reason))
        for child in self._children.values():
            _reject(child.exited, GuardianLostError(f"process {child.pid}: {reason}"))
            child.exited.exception()  # seen: nobody may be waiting for it
        self._starting.clear()
        self._children.clear()

    def _release(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, fds in self._unsent:
            _close_all(fds)
        self._unsent.clear()

    @property
    def closed(self) -> bool:
        """The channel was closed or the guardian died."""
        return self._closed

    def close(self) -> None:
        """Close the channel; the guardian kills what is left of its programs."""
        self._release()
        self._fail_all("its manager was closed")


def guardian_pid() -> int | None:
    """Process id of this worker's guardian, if it runs."""
    return _GUARDIAN.pid


def _pack_limits(limits: Limits | None) -> tuple[int, ...]:
    return tuple(-1 if value is None else value for value in (limits or _NO_LIMITS).as_tuple())


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _resolve(future: asyncio.Future[Exit] | asyncio.Future[None], value: Exit | None) -> None:
    if not future.done():
        future.set_result(value)  # type: ignore[arg-type]


def _reject(future: asyncio.Future[Exit] | asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


_NO_LIMITS = Limits()
