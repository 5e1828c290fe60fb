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


def test_a_failure_that_does_not_come_again_stays_as_it_is() -> None:
    fuzz = operation("fails_above_a_thousand")
    finding = replace(found_by(fuzz), signature="another")
    assert made_small(fuzz, finding) == finding


@pytest.mark.parametrize("target", ["dies_when_smaller", "hangs_when_smaller"])
def test_a_smaller_example_that_kills_or_hangs_ends_it_with_what_was_found_before(target: str) -> None:
    fuzz = operation(target, example_timeout_s=1.0)
    finding = next(found for found in run(fuzz).findings if found.kind is ErrorKind.EXCEPTION)
    small = made_small(fuzz, finding)
    assert small.signature == finding.signature
    assert 2**14 <= int(small.message) <= int(finding.message)


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
