"""The guardian: a small process that starts, reaps and kills every child of one worker.

It is one file because it runs as a script (``python -I -S guardian.py FD PREFIX``); it imports only the standard
library and has one thread. It is the parent and the subreaper of all children, so whatever a child forks ends up below
it, whatever sessions it opens. From that follow the guarantees:

- It alone reaps, so a pid it signals cannot have been reused.
- A program's tree lives as long as its leader. When the leader ends, its group is killed before the leader is reaped
  (the number of the group is still taken), then every orphan that carries the leader's tag; only when nothing is left
  is the exit reported.
- When the worker ends, by SIGKILL too, its socket closes and its pidfd becomes readable: everything below dies.

An orphan that called ``setsid`` and lost its parents is known by its tag: the soft RLIMIT_LOCKS, which Linux has not
enforced since 2.4.25 (getrlimit(2)) but hands down through fork and exec. An orphan without the tag of a running
leader has no business here and is killed.

Limits are set on the guardian itself (soft ones, which it may raise again) around ``posix_spawn``, so the program has
them from its first instruction, and are made hard with ``prlimit`` right after, for what it has forked by then too: no
``preexec_fn``, no extra program.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import NamedTuple

SPAWN, SIGNAL, KILL, CONNECT = range(4)
"""Requests: start a program; signal its group; kill its tree; here is one more channel (its socket comes along)."""
STARTED, FAILED, EXITED = range(3)
"""Replies, of which one packet may hold many."""

#: op, job, signal, lengths of argv and env in bytes, and the limits in the order of ``Limits`` (-1: unchanged).
REQUEST = struct.Struct("=BQiII6q")
#: op, job, pid or errno, wait status or failing stage, peak memory in KiB, CPU time in us, processes that outlived it.
REPLY = struct.Struct("=BQiiqqi")
STAGE_PROGRAM, STAGE_CWD = range(2)

#: How many requests of one channel are served before exits are looked at and replies sent.
MOST_REQUESTS = 8
#: A request that does not fit a packet travels in a memfd; well below the default socket buffer of 208 KiB.
MAX_PACKET_BYTES = 65_536
#: How long a killed orphan may take to vanish before the exit is reported without it (uninterruptible sleep).
ORPHAN_WAIT_S = 2.0
#: How often exits that wait for orphans, and replies that wait for room, are looked at again.
RETRY_S = 0.05
#: How long the guardian stays to reap once its worker is gone; SIGKILL normally needs milliseconds.
LAST_REAP_S = 10.0

#: Enough for the pids of 9,000 children, and small enough to be allocated without a system call.
CHILDREN_BYTES = 64 * 1024
#: Enough for as many processes as Linux can have (4 million).
MOST_CHILDREN_BYTES = 32 * 1024 * 1024
#: The upper half of a tag names the guardian, the lower half the leader.
TAG_PREFIX_SHIFT = 32

_PR_SET_CHILD_SUBREAPER = 36
_RLIMIT_LOCKS = 10
_UNTAGGED = -1
# RLIMIT_NPROC counts all processes of the user, so a lowered one could stop the guardian's own fork: it is set after.
_SET_BEFORE = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
    None,
    resource.RLIMIT_CORE,
)
_SET_AFTER = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_CORE,
)
# Python ignores these two, and an ignored signal would stay ignored in the program.
_RESET_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)


# Without MSG_CMSG_CLOEXEC programs would inherit each other's pipes, and readers would never see EOF.
_RECEIVE_FLAGS = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT


class Order(NamedTuple):
    """A program to start: NUL-separated blocks of (cwd, argv) and environment, three descriptors, six limits.

    ``folder`` is the working directory where it was opened already, and cwd only its name.
    """

    argv: bytes
    env: bytes
    fds: list[int]
    limits: list[int]
    folder: int | None


class Leader(NamedTuple):
    """A started program."""

    channel: Channel
    job: int
    tag: int


class Ending(NamedTuple):
    """A leader that was reaped and whose orphans are still dying."""

    leader: Leader
    pid: int
    status: int
    usage: resource.struct_rusage
    deadline: float


class Channel:
    """One event loop of the worker: its requests come in, its replies go out."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.replies = bytearray()
        self.env_blob = b""
        self.env: dict[bytes, bytes] = {}

    def receive(self) -> tuple[bytes, list[int]]:
        """One request and its descriptors; empty at the end of the stream."""
        packet, ancillary, _, _ = self.sock.recvmsg(MAX_PACKET_BYTES, 256, _RECEIVE_FLAGS)
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        return packet, fds.tolist()

    def environment(self, blob: bytes) -> dict[bytes, bytes]:
        """The mapping of an environment block; the last one is kept because jobs of a batch share it."""
        if blob != self.env_blob:
            self.env = dict(entry.split(b"=", 1) for entry in blob.split(b"\0"))
            self.env_blob = blob
        return self.env

    def flush(self) -> None:
        """Send the collected replies; what a busy worker has no room for stays for the next turn of the loop."""
        while self.replies:
            packet = bytes(self.replies[: MAX_PACKET_BYTES // REPLY.size * REPLY.size])
            try:
                self.sock.send(packet, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            del self.replies[: len(packet)]


class Guardian:
    """The loop: requests in, exits out, and a sweep for orphans whenever something ended."""

    def __init__(self, control: socket.socket, prefix: int) -> None:
        self.poll = select.epoll()
        self.channels: dict[int, Channel] = {}
        self.leaders: dict[int, Leader] = {}
        self.pids: dict[tuple[Channel, int], int] = {}
        self.ending: list[Ending] = []
        self.live_tags: set[int] = set()
        self.next_tag = prefix << TAG_PREFIX_SHIFT
        self.control = control.fileno()
        self.add_channel(control)
        self.wakeup = self._watch_signals()
        self.worker = os.pidfd_open(os.getppid())
        self.children = os.open("/proc/thread-self/children", os.O_RDONLY)
        for fd in (self.wakeup, self.worker):
            self.poll.register(fd, select.EPOLLIN)

    def _watch_signals(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Handlers, never SIG_IGN: an ignored signal would be inherited. SIGXCPU can reach the guardian while its own
        # soft limit is lowered for a spawn.
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
            signal.signal(signum, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        return reader

    def add_channel(self, sock: socket.socket) -> None:
        """Serve one more event loop."""
        self.channels[sock.fileno()] = Channel(sock)
        self.poll.register(sock.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Serve until the worker is gone; then, and after a fault in here too, kill all that is left."""
        try:
            while self.control in self.channels:
                self.turn()
        finally:
            self.kill_everything()

    def turn(self) -> None:
        """Wait for something to happen and deal with it."""
        unfinished = self.ending or any(channel.replies for channel in self.channels.values())
        for fd, _ in self.poll.poll(RETRY_S if unfinished else -1):
            if fd == self.wakeup:
                if signal.SIGTERM in os.read(fd, 4096):
                    self.channels.pop(self.control, None)
            elif fd == self.worker:
                self.channels.pop(self.control, None)
            elif fd in self.channels:  # an event before it may have closed it
                self.serve(self.channels[fd])
        self.reap()
        self.sweep()
        self.flush()

    def serve(self, channel: Channel) -> None:
        """Do what the waiting requests ask; several at a time save the worker wake-ups."""
        for _ in range(MOST_REQUESTS):
            try:
                packet, fds = channel.receive()
            except BlockingIOError:
                return
            except ConnectionError:
                packet, fds = b"", []
            if not packet:
                self.drop_channel(channel)
                return
            self.obey(channel, packet, fds)

    def obey(self, channel: Channel, packet: bytes, fds: list[int]) -> None:
        """Do what one request asks."""
        op, job, signum, argv_size, env_size, *limits = REQUEST.unpack_from(packet)
        if op == SPAWN:
            body = packet[REQUEST.size :] or read_memfd(fds.pop())
            argv, env = body[:argv_size], body[argv_size : argv_size + env_size]
            self.spawn(channel, job, Order(argv, env, fds[:3], limits, fds[3] if len(fds) > 3 else None))
        elif op == CONNECT:
            self.add_channel(socket.socket(fileno=fds.pop()))
        elif (channel, job) in self.pids:
            self.kill(self.pids[channel, job], signum, tree=op == KILL)
        for fd in fds:
            os.close(fd)

    def drop_channel(self, channel: Channel) -> None:
        """End everything that one event loop of the worker started."""
        if self.channels.pop(channel.sock.fileno(), None) is None:
            return
        self.poll.unregister(channel.sock.fileno())
        channel.sock.close()
        for pid, leader in self.leaders.items():
            if leader.channel is channel:
                self.kill(pid, signal.SIGKILL, tree=True)

    def spawn(self, channel: Channel, job: int, order: Order) -> None:
        """Start a program and report that it started, or why it did not."""
        cwd, *argv = order.argv.split(b"\0")
        env = channel.environment(order.env) if order.env else {}
        try:
            os.chdir(cwd if order.folder is None else order.folder)
        except OSError as error:
            channel.replies += REPLY.pack(FAILED, job, error.errno or errno.EIO, STAGE_CWD, 0, 0, 0)
            return
        self.next_tag += 1
        try:
            pid = spawn_limited(argv, env, order, self.next_tag)
        except OSError as error:
            channel.replies += REPLY.pack(FAILED, job, error.errno or errno.EIO, STAGE_PROGRAM, 0, 0, 0)
            return
        self.leaders[pid] = Leader(channel, job, self.next_tag)
        self.pids[channel, job] = pid
        self.live_tags.add(self.next_tag)
        channel.replies += REPLY.pack(STARTED, job, pid, 0, 0, 0, 0)

    def kill(self, pid: int, signum: int, *, tree: bool) -> None:
        """Signal the group of an unreaped leader; with ``tree``, its orphans are free to be swept from now on."""
        with contextlib.suppress(PermissionError):  # all of it is set-uid: reported as survivors
            if tree:
                self.live_tags.discard(self.leaders[pid].tag)
                os.kill(pid, signum)  # it may have moved to another group; an unreaped child always has its pid
            with contextlib.suppress(ProcessLookupError):  # nobody is left in its group
                os.killpg(pid, signum)

    def reap(self) -> None:
        """Collect everything that ended; leaders end with their groups."""
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None:
                return
            pid = info.si_pid
            if pid in self.leaders:
                self.kill(pid, signal.SIGKILL, tree=True)  # before the reap: until then the group's number is ours
            _, status, usage = os.wait4(pid, 0)
            leader = self.leaders.pop(pid, None)
            if leader is not None:
                del self.pids[leader.channel, leader.job]
                self.ending.append(Ending(leader, pid, status, usage, time.monotonic() + ORPHAN_WAIT_S))

    def sweep(self) -> None:
        """Kill orphans of ended leaders; report the exits of those that have none left."""
        if not self.ending:
            return
        dying = self.kill_orphans()
        now = time.monotonic()
        waiting = []
        for ending in self.ending:
            survivors = dying.count(ending.leader.tag)
            if survivors and now < ending.deadline:
                waiting.append(ending)
                continue
            usage = ending.usage
            cpu_us = int((usage.ru_utime + usage.ru_stime) * 1_000_000)
            ending.leader.channel.replies += REPLY.pack(
                EXITED, ending.leader.job, ending.pid, ending.status, usage.ru_maxrss, cpu_us, survivors
            )
        self.ending = waiting

    def orphans(self) -> list[int]:
        """Children that are not leaders: only this process reaps, so one read of the list is exact."""
        listing = os.pread(self.children, CHILDREN_BYTES, 0)
        if len(listing) >= CHILDREN_BYTES - 8:
            listing = os.pread(self.children, MOST_CHILDREN_BYTES, 0)
        if listing.count(b" ") == len(self.leaders):
            return []
        return [pid for pid in map(int, listing.split()) if pid not in self.leaders]

    def kill_orphans(self) -> list[int]:
        """Kill the orphans that belong to no running leader; returns their tags."""
        dying = []
        for pid in self.orphans():
            tag = tag_of(pid)
            if tag not in self.live_tags:
                dying.append(tag)
                with contextlib.suppress(PermissionError):  # set-uid: reported as a survivor
                    os.kill(pid, signal.SIGKILL)
        return dying

    def flush(self) -> None:
        """Send all collected replies."""
        for channel in list(self.channels.values()):
            try:
                channel.flush()
            except OSError:
                self.drop_channel(channel)

    def kill_everything(self) -> None:
        """The worker is gone: no child outlives it, whichever session it is in."""
        self.live_tags.clear()
        for pid in self.leaders:
            self.kill(pid, signal.SIGKILL, tree=True)
        deadline = time.monotonic() + LAST_REAP_S
        while time.monotonic() < deadline:
            self.reap()
            if not self.kill_orphans() and not self.leaders:
                return
            select.select([self.wakeup], [], [], RETRY_S)
            with contextlib.suppress(BlockingIOError):
                os.read(self.wakeup, 4096)


def spawn_limited(argv: list[bytes], env: dict[bytes, bytes], order: Order, tag: int) -> int:
    """Start ``argv`` in its own group with ``limits`` and ``tag`` in force before its first instruction."""
    before = [
        (kind, value) for kind, value in zip(_SET_BEFORE, order.limits, strict=True) if kind is not None and value >= 0
    ]
    saved = [(kind, resource.getrlimit(kind)) for kind, _ in before]
    resource.setrlimit(_RLIMIT_LOCKS, (tag, resource.RLIM_INFINITY))
    try:
        for (kind, value), (_, (_, hard)) in zip(before, saved, strict=True):
            # glibc moves no descriptor at or above the soft limit; a smaller one holds right after the start.
            least = max(order.fds) + 1 if kind == resource.RLIMIT_NOFILE else 0
            resource.setrlimit(kind, (clamp(max(value, least), hard), hard))
        pid = spawn(argv, env, order.fds)
    finally:
        for kind, pair in saved:
            resource.setrlimit(kind, pair)
    wanted = [(kind, value) for kind, value in zip(_SET_AFTER, order.limits, strict=True) if value >= 0]
    if wanted:
        harden_tree(pid, wanted)
    return pid


def clamp(value: int, hard: int) -> int:
    """A soft limit cannot be above the hard one the worker itself has."""
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def harden_tree(pid: int, limits: list[tuple[int, int]]) -> None:
    """Make the limits of a child final, and those of all it has forked already.

    Parents first: what one forks from then on inherits final limits, and what it forked before is in its list. So a
    program that raised its soft limits in its first moments, and what it started meanwhile, are put back.
    """
    for kind, value in limits:
        harden(pid, kind, value)
    for child in children_of(pid):
        harden_tree(child, limits)


def children_of(pid: int) -> list[int]:
    """The children of all threads of a process, as far as it still exists."""
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children += map(int, file.read().split())
    return children


def harden(pid: int, kind: int, value: int) -> None:
    """Make a limit of a running child final, so that it cannot raise it again."""
    try:
        _, hard = resource.prlimit(pid, kind)
        soft = clamp(value, hard)
        # One second between SIGXCPU and SIGKILL lets a program report what it was doing.
        resource.prlimit(pid, kind, (soft, clamp(soft + 1, hard) if kind == resource.RLIMIT_CPU else soft))
    except (ProcessLookupError, PermissionError):
        return  # ended already, or set-uid: its soft limits hold


def spawn(argv: list[bytes], env: dict[bytes, bytes], fds: list[int]) -> int:
    """Start the first of ``candidates`` that can be, with ``fds`` as its standard streams.

    Raises:
        OSError: None of them can.
    """
    # A group and not a session of its own: with sched_autogroup_enabled a session costs 1 ms to start in.
    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)]
    failure: OSError = FileNotFoundError(errno.ENOENT, "no such program")
    for path in candidates(argv[0], env):
        try:
            return os.posix_spawn(
                path, argv, env, file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=_RESET_SIGNALS
            )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            failure = error  # execvp(3): go on searching, and say so if nothing else is found
    raise failure


def candidates(program: bytes, env: dict[bytes, bytes]) -> list[bytes]:
    """Where a program may be, in the order of PATH."""
    if b"/" in program:
        return [program]
    paths = (os.path.join(folder, program) for folder in env.get(b"PATH", os.fsencode(os.defpath)).split(b":"))
    return [path for path in paths if os.path.exists(path)]


def tag_of(pid: int) -> int:
    """Which leader a process descends from."""
    try:
        return resource.prlimit(pid, _RLIMIT_LOCKS)[0]
    except (ProcessLookupError, PermissionError):
        return _UNTAGGED


def read_memfd(fd: int) -> bytes:
    """The content of a memfd, which is closed."""
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read()


def main() -> None:
    """Serve the worker at the other end of a socket; the arguments are its number and the prefix of all tags."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)  # it was, to come through the exec of this interpreter
    Guardian(control, int(sys.argv[2])).run()


if __name__ == "__main__":
    main()
