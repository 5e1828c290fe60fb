"""Worker processes that are started again when they die, and end together when we are told to."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.settings import WorkerHostSettings

FIRST_RESTART_S = 0.1
LONGEST_RESTART_S = 10.0
"""A worker that dies again and again, for a wrong setting perhaps, must not burn a core."""

HEALTHY_AFTER_S = 10.0
"""A worker that lived for so long starts over with the shortest wait."""

CHECK_EVERY_S = 0.05

STOP_MARGIN_S = 25.0
"""Beyond the workers' own grace period after SIGTERM: they kill themselves 20 s after it, unless they hang."""

HURRY_S = 6.0
"""The same after a second signal: they kill themselves after 5 s."""

USAGE_EXIT_CODES = frozenset({2, 3})
"""The worker said itself that it cannot work; right after its first start there is no sense in a second. Later, such as
after an outage longer than `reconnect_s`, there is."""

log = get_logger(__name__)


class Supervised:
    """One worker process and when to start it again."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._restarts = 0
        self._start_at = 0.0
        self.process = self._spawn()

    def check(self) -> int | None:
        """Start the process again if it has died and waited; return its exit code if it gave up at once."""
        code = self.process.poll()
        if code is None:
            return None
        lived_s = time.monotonic() - self._started
        if code in USAGE_EXIT_CODES and not self._restarts and lived_s < HEALTHY_AFTER_S:
            return code
        if not self._start_at:
            self._restarts = 0 if lived_s >= HEALTHY_AFTER_S else self._restarts
            wait_s = min(LONGEST_RESTART_S, FIRST_RESTART_S * 2**self._restarts)
            log.warning("a worker died and is started again", pid=self.process.pid, exit_code=code, in_s=wait_s)
            self._restarts += 1
            self._start_at = time.monotonic() + wait_s
        elif time.monotonic() >= self._start_at:
            self.process = self._spawn()
        return None

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._started, self._start_at = time.monotonic(), 0.0
        return subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)


def worker_command() -> list[str]:
    """Return the command of one worker; its settings are in the environment."""
    return [sys.executable, "-m", "fuzzfarm_worker", "run"]


def supervise(settings: WorkerHostSettings, processes: int, until: Callable[[], bool] = lambda: False) -> int:
    """Keep `processes` workers alive until SIGTERM, SIGINT, or `until` says True; return the exit code.

    A second signal is passed on to the workers, which then leave at once; a third one kills them.
    """
    workers: list[Supervised] = []
    stop = Stop(workers, settings.grace_s + STOP_MARGIN_S, until)
    signal.signal(signal.SIGTERM, stop.on_signal)
    signal.signal(signal.SIGINT, stop.on_signal)
    try:
        while len(workers) < processes and not stop.told:
            workers.append(Supervised(worker_command()))
        return _watch(workers, stop)
    finally:
        stop.run()


class Stop:
    """The end of all workers.

    Args:
        workers: that are to end.
        timeout_s: what they get, unless there are more signals.
        until: asks somebody else whether they are to end.
    """

    def __init__(self, workers: list[Supervised], timeout_s: float, until: Callable[[], bool]) -> None:
        self._workers = workers
        self._timeout_s = timeout_s
        self._until = until
        self._signals = 0
        self._kill_at = math.inf

    def on_signal(self, _: int, __: FrameType | None) -> None:
        """Take a signal to this process, whatever it does: an event here would wait for a lock that it may hold."""
        self._signals += 1
        if self._signals > 1:
            self._kill_at = time.monotonic() + (HURRY_S if self._signals == 2 else 0.0)
            _signal_all(self._workers, signal.SIGINT)  # two of the same kind may arrive as one

    @property
    def told(self) -> bool:
        """Whether they are to end."""
        return self._signals > 0 or self._until()

    def run(self) -> None:
        """Ask all workers to end, wait, and kill those that do not."""
        self._kill_at = min(self._kill_at, time.monotonic() + self._timeout_s)
        _signal_all(self._workers, signal.SIGTERM)
        for worker in self._workers:
            while worker.process.poll() is None and time.monotonic() < self._kill_at:
                time.sleep(CHECK_EVERY_S)
            if worker.process.poll() is None:
                log.error("a worker did not stop and is killed", pid=worker.process.pid)
                worker.process.kill()
                worker.process.wait()


def _watch(workers: list[Supervised], stop: Stop) -> int:
    """Return 0 when told to stop, or the exit code of the first worker that gave up."""
    while not stop.told:
        time.sleep(CHECK_EVERY_S)
        codes = [given_up for worker in workers if (given_up := worker.check()) is not None]
        if codes:
            return codes[0]
    return 0


def _signal_all(workers: list[Supervised], number: int) -> None:
    for worker in workers:
        worker.process.send_signal(number)
