import time
from dataclasses import replace

import pytest
from shard_runs import found_by, made_small, operation, run

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.outcomes import ErrorKind, Finding


@pytest.mark.parametrize("stateless", [False, True])
def test_a_finding_gets_the_smallest_example_with_all_that_tells_it(stateless: bool) -> None:
    fuzz = operation("fails_above_a_thousand", stateless=stateless)
    finding = found_by(fuzz)
    small = made_small(fuzz, finding)
    assert small.example == "fails_above_a_thousand(number=1001)"
    assert small.index is None
    assert len(small.choices) <= len(finding.choices)
    changed = {"example", "index", "choices", "traceback", "output", "message"}
    assert all(getattr(small, name) == getattr(finding, name) for name in Finding.__slots__ if name not in changed)


@pytest.mark.parametrize("target", ["exits_above_a_thousand", "segfaults_above_a_thousand"])
def test_an_example_that_kills_its_child_is_made_smaller_in_forks(target: str) -> None:
    fuzz = operation(target)
    finding = found_by(fuzz, 40)
    small = made_small(fuzz, finding)
    assert small.example == f"{target}(number=1001)"
    assert (small.signature, small.type, small.kind) == (finding.signature, finding.type, ErrorKind.KILLED)


def test_a_hang_stays_as_it_is() -> None:
    fuzz = operation("hangs", example_timeout_s=0.5)
    finding = found_by(fuzz, 60)
    assert made_small(fuzz, finding) == finding


@pytest.mark.parametrize("target", ["killed_above_a_thousand", "draws_and_exits"])
def test_what_is_killed_for_memory_and_what_draws_and_kills_stay_as_they_are(target: str) -> None:
    fuzz = operation(target)
    finding = found_by(fuzz, 40)
    assert finding.kind is ErrorKind.KILLED
    assert made_small(fuzz, finding) == finding


def test_a_failure_that_does_not_come_again_stays_as_it_is() -> None:
    fuzz = operation("fails_above_a_thousand")
    finding = replace(found_by(fuzz), signature="another")
    assert made_small(fuzz, finding) == finding


def test_smaller_examples_that_kill_are_passed_over() -> None:
    fuzz = operation("dies_when_smaller")
    finding = next(found for found in run(fuzz).findings if found.kind is ErrorKind.EXCEPTION)
    assert made_small(fuzz, finding).example == f"dies_when_smaller(number={2**14})"


def test_a_smaller_example_that_hangs_ends_it_with_its_budget() -> None:
    fuzz = operation("hangs_when_smaller", example_timeout_s=0.5)
    finding = next(found for found in run(fuzz, 0, 40).findings if found.kind is ErrorKind.EXCEPTION)
    began = time.monotonic()
    small = made_small(fuzz, finding, budget_s=0.5)
    assert time.monotonic() - began < 30.0, "it waits for the hang, which lasts for an hour"
    assert small.signature == finding.signature
    assert 2**14 <= int(small.message) <= int(finding.message)


def test_of_two_crashes_each_stays_itself() -> None:
    fuzz = operation("crashes_in_two_places")
    findings = run(fuzz).findings
    small = {made_small(fuzz, finding).example for finding in findings}
    assert small == {"crashes_in_two_places(number=1001)", f"crashes_in_two_places(number={10**6})"}


def test_what_an_example_prints_does_not_end_it() -> None:
    fuzz = operation("prints_a_lot_and_fails", limits={"file_size_bytes": 2**20})
    assert made_small(fuzz, found_by(fuzz)).example == "prints_a_lot_and_fails(number=1001)"


def test_draws_in_forks_are_kept_with_the_finding() -> None:
    fuzz = operation("draws_and_fails", stateless=True)
    finding = found_by(fuzz)
    assert finding.choices
    assert "# Draw 1: 1001" in made_small(fuzz, finding).example


def test_it_ends_with_its_budget_and_when_the_worker_leaves() -> None:
    fuzz = operation("fails_above_a_thousand")
    finding = found_by(fuzz)
    assert made_small(fuzz, finding, proceed=never) == finding
    assert made_small(fuzz, finding, budget_s=0.0) == finding


def never() -> bool:
    return False


def test_a_target_that_cannot_be_loaded_any_more_is_an_error() -> None:
    finding = found_by(operation("fails_above_a_thousand"))
    with pytest.raises(TargetError, match="no_such"):
        made_small(operation("fuzzing_subjects:no_such"), finding)
