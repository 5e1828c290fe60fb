"""A farm of one's own: one process that starts server and workers, and ends with all of them when we end."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fuzzfarm_shared.errors import FarmUnreachableError, SettingsError
from fuzzfarm_shared.settings import FarmSettings, WorkerHostSettings

START_TIMEOUT_S = 30.0
"""A loaded machine may take seconds to start two interpreters and a server."""

STOP_MARGIN_S = 40.0
"""Beyond the workers' grace period. More than the host needs to kill workers that do not stop (25 s) and to stop the
server (6 s): killing the host itself would leave both behind."""

POLL_S = 0.005
SOCKET = "server.sock"

MAX_SOCKET_PATH_BYTES = 103
"""`sun_path` without its end: 104 bytes on macOS, 108 on Linux (unix(7))."""

EVERYTHING_ALLOWED = {"allow_targets": "*", "allow_commands": "*", "allow_roots": "*", "allow_env": "*"}
"""Only this user can reach the server."""


class EmbeddedHost:
    """Starts `python -m fuzzfarm_worker embedded`; it stops when the pipe that is its input closes."""

    def __init__(self, workers: int, worker_settings: dict[str, Any]) -> None:
        if workers < 1:
            raise SettingsError(f"an embedded farm needs at least one worker, not {workers}")
        self._workers = workers
        self._given = {**EVERYTHING_ALLOWED, **worker_settings}
        self._stop_timeout_s = WorkerHostSettings.load(**self._given).grace_s + STOP_MARGIN_S
        self._folder = Path(tempfile.gettempdir()) / f"fuzzfarm-{secrets.token_hex(8)}"
        if len(os.fsencode(self._folder / SOCKET)) > MAX_SOCKET_PATH_BYTES:
            raise SettingsError(
                f"the folder {tempfile.gettempdir()} is too long for a socket: set TMPDIR to a shorter one"
            )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"unix://{self._folder / SOCKET}"

    @property
    def shared_settings(self) -> dict[str, Any]:
        """What a producer must have as the workers have it, the server's address too."""
        shared = {name: value for name, value in self._given.items() if name in FarmSettings.model_fields}
        return {**shared, "redis_url": self.url}

    @property
    def log_path(self) -> Path:
        """Where server and workers write their log while they run."""
        return self._folder / "farm.log"

    async def __aenter__(self) -> Self:
        command = [sys.executable, "-m", "fuzzfarm_worker", "embedded", "--workers", str(self._workers)]
        self._folder.mkdir(mode=0o700)  # only this user can reach the server
        try:
            self._process = await asyncio.to_thread(self._start, command)
            await self._ready(self._process)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log_path.open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**_environment(self._given), "FUZZFARM_REDIS_URL": self.url},
                start_new_session=True,  # Ctrl-C is ours to handle
            )

    async def _ready(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the server takes connections; its socket appears a moment earlier."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(self._folder / SOCKET):
            if process.poll() is not None or time.monotonic() > deadline:
                lines = self.log_path.read_text(errors="replace").strip().splitlines()
                reason = lines[-1] if lines else f"exit code {process.returncode}"
                raise FarmUnreachableError(self.url, f"the embedded farm did not start: {reason}")
            await asyncio.sleep(POLL_S)

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None  # noqa: S101 - opened as a pipe
            process.stdin.close()
            try:
                await asyncio.to_thread(process.wait, self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)
        shutil.rmtree(self._folder, ignore_errors=True)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(str(path)) == 0


def _environment(given: dict[str, Any]) -> dict[str, str]:
    """Return our environment with the workers' settings in it."""
    texts = {f"FUZZFARM_{name.upper()}": _text(value) for name, value in given.items() if value is not None}
    return {**os.environ, **texts}


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
