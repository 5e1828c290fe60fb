"""When the supervisor starts a worker again and when it gives up, with real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fuzzfarm.embedded import EmbeddedHost
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_worker import supervisor
from fuzzfarm_worker.supervisor import USAGE_EXIT_CODES, Supervised, supervise

LONGEST_S = 20.0


def leaving(code: int) -> list[str]:
    """The command of a process that leaves with `code` at once."""
    return [sys.executable, "-c", f"raise SystemExit({code})"]


def ended(code: int) -> Supervised:
    worker = Supervised(leaving(code))
    assert worker.process.wait(LONGEST_S) == code
    return worker


@pytest.mark.parametrize("code", sorted(USAGE_EXIT_CODES))
def test_a_worker_that_cannot_work_from_its_start_is_given_up(code: int) -> None:
    assert ended(code).check() == code


@pytest.mark.parametrize("code", sorted(USAGE_EXIT_CODES))
def test_a_worker_that_worked_and_lost_its_server_is_started_again(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HEALTHY_AFTER_S", 0.0)
    worker = ended(code)
    first = worker.process.pid
    while worker.process.pid == first:
        assert worker.check() is None
    assert worker.process.wait(LONGEST_S) == code


def test_a_signal_is_heard_whatever_the_supervisor_does_at_that_moment() -> None:
    """Seen to fail where it waits for an event that the signal sets: it waited for its own lock, for ever."""
    code = """
import os, signal, threading
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_worker import supervisor

def start():
    while timers:
        timers.pop().start()
    return False

supervisor.CHECK_EVERY_S = 0
for _ in range(200):
    both = [threading.Timer(0.001, os.kill, (os.getpid(), number)) for number in (signal.SIGTERM, signal.SIGINT)]
    timers = list(both)
    supervisor.supervise(WorkerHostSettings(), 0, until=start)
    for timer in both:
        timer.join()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LONGEST_S)


@pytest.fixture
def own_signals() -> Iterator[None]:
    """The supervisor takes the signals of its process, here that of the tests."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def started(own_signals: None, monkeypatch: pytest.MonkeyPatch) -> list[Supervised]:
    """The workers that `supervise` starts."""
    workers: list[Supervised] = []

    class Noted(Supervised):
        def __init__(self, command: list[str]) -> None:
            super().__init__(command)
            workers.append(self)

    monkeypatch.setattr(supervisor, "Supervised", Noted)
    return workers


def test_workers_do_not_outlive_a_supervisor_that_cannot_start_another(
    started: list[Supervised], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = iter([[sys.executable, "-c", "import signal; signal.pause()"], ["/no/such/program"]])
    monkeypatch.setattr(supervisor, "worker_command", lambda: next(commands))
    with pytest.raises(FileNotFoundError):
        supervise(WorkerHostSettings(), 2)
    assert [worker.process.returncode for worker in started] == [-signal.SIGTERM]


def test_a_signal_while_workers_are_started_stops_them(
    started: list[Supervised], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> list[str]:
        if started:
            signal.raise_signal(signal.SIGTERM)
        return [sys.executable, "-c", "import signal; signal.pause()"]

    monkeypatch.setattr(supervisor, "worker_command", command)
    assert supervise(WorkerHostSettings(), 100) == 0
    assert [worker.process.returncode for worker in started] == [-signal.SIGTERM] * 2


def test_a_third_signal_kills_workers_that_do_not_follow(
    started: list[Supervised], monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = (
        "import os, signal\n"
        "for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, signal.SIG_IGN)\n"
        "for _ in range(3): os.kill(os.getppid(), signal.SIGTERM); os.read(0, 1)\n"
        "signal.pause()"
    )
    monkeypatch.setattr(supervisor, "worker_command", lambda: [sys.executable, "-c", deaf])
    assert supervise(WorkerHostSettings(), 1) == 0
    assert [worker.process.returncode for worker in started] == [-signal.SIGKILL]


def test_an_embedded_farm_waits_longer_for_its_host_than_the_host_for_its_workers() -> None:
    server_stop_s, grace_s = 6.0, 100.0
    host = EmbeddedHost(1, {"grace_s": grace_s})
    assert host._stop_timeout_s > grace_s + supervisor.STOP_MARGIN_S + server_stop_s
