import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shard_runs import found_by, operation

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding
from fuzzfarm_worker.fuzzing import confirming
from fuzzfarm_worker.fuzzing.confirming import RUNS, confirm
from fuzzfarm_worker.fuzzing.nursery import Nursery
from fuzzfarm_worker.processes import ProcessManager


def confirmed(fuzz: FuzzOperation, finding: Finding, **options: Any) -> Finding:
    async def main() -> Finding:
        async with ProcessManager() as processes, Nursery(processes) as nursery:
            return await confirm(nursery, fuzz, finding, **options)

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def ample_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine not cut runs short; a test of the budget sets its own."""
    monkeypatch.setattr(confirming, "BUDGET_S", 60.0)


@pytest.mark.parametrize("target", ["fails_above_a_thousand", "exits", "segfaults", "recurses"])
def test_a_finding_that_always_fails_is_seen_to(target: str) -> None:
    fuzz = operation(target)
    finding = found_by(fuzz)
    assert finding.replays == 0
    assert confirmed(fuzz, finding) == replace(finding, replays=RUNS, replay_failures=RUNS)


def test_a_finding_that_fails_every_second_time_is_flaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fuzz = operation("sometimes")
    confirmation = confirmed(fuzz, found_by(fuzz, 20))
    assert (confirmation.replays, confirmation.replay_failures) == (RUNS, RUNS // 2)
    assert confirmation.flaky


def test_a_finding_that_needs_what_earlier_examples_left_behind_is_flaky() -> None:
    fuzz = operation("reproducer_subjects:remembers_what_it_saw")
    confirmation = confirmed(fuzz, found_by(fuzz))
    assert (confirmation.replays, confirmation.replay_failures) == (RUNS, 0)


def test_a_failure_of_another_kind_does_not_confirm_a_finding() -> None:
    fuzz = operation("fails_above_a_thousand")
    confirmation = confirmed(fuzz, replace(found_by(fuzz), signature="another"))
    assert (confirmation.replays, confirmation.replay_failures) == (RUNS, 0)


def test_a_hang_is_run_again_as_often_as_its_budget_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirming, "BUDGET_S", 2.0)
    fuzz = operation("hangs", example_timeout_s=0.5)
    finding = found_by(fuzz, 60)
    confirmation = confirmed(fuzz, finding)
    assert 1 <= confirmation.replays == confirmation.replay_failures <= confirming.BUDGET_S / 0.5
    monkeypatch.setattr(confirming, "BUDGET_S", 0.4)
    assert confirmed(fuzz, finding).replays == 0


def test_what_computes_for_longer_than_its_budget_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"cpu_s": 1}
    fuzz = operation("restricted_subjects:computes_in_a_thread", limits=limits, example_timeout_s=60)
    finding = found_by(fuzz, 1)
    monkeypatch.setattr(confirming, "RUNS", 2)
    confirmation = confirmed(fuzz, finding)
    assert (confirmation.replays, confirmation.replay_failures) == (2, 2)
    monkeypatch.setattr(confirming, "BUDGET_S", 0.9)
    assert confirmed(fuzz, finding).replays == 0


def test_a_slow_host_says_nothing_about_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz = operation("hangs", example_timeout_s=0.2)
    finding = replace(found_by(fuzz, 60), kind=ErrorKind.EXCEPTION)
    assert confirmed(fuzz, finding).replays == 0


def test_what_killed_workers_is_not_run_again() -> None:
    fuzz = operation("exits")
    assert confirmed(fuzz, replace(found_by(fuzz), kind=ErrorKind.WORKER_LOST)).replays == 0


def test_nothing_is_run_again_while_the_worker_leaves() -> None:
    fuzz = operation("fails_above_a_thousand")
    finding = found_by(fuzz)
    assert confirmed(fuzz, finding, proceed=stops_after(0)).replays == 0
    confirmation = confirmed(fuzz, finding, proceed=stops_after(3))
    assert (confirmation.replays, confirmation.replay_failures) == (3, 3)


def stops_after(runs: int) -> Callable[[], bool]:
    left = iter(range(runs))
    return lambda: next(left, None) is not None


def test_a_target_that_cannot_be_loaded_any_more_is_an_error() -> None:
    finding = found_by(operation("fails_above_a_thousand"))
    with pytest.raises(TargetError, match="no_such"):
        confirmed(operation("fuzzing_subjects:no_such"), finding)
