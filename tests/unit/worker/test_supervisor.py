"""When the supervisor starts a worker again and when it gives up, with real processes."""

from __future__ import annotations

import sys

import pytest

from fuzzfarm_worker import supervisor
from fuzzfarm_worker.supervisor import USAGE_EXIT_CODES, Supervised

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
