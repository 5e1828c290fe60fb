"""Stateless runs: each example in a fork of its own, with the same findings as without."""

import pytest
from shard_runs import operation, run, smallest

from fuzzfarm_shared.outcomes import ErrorKind


def test_an_example_finds_nothing_that_another_left_behind() -> None:
    assert run(operation("remembers"), 0, 50).findings
    result = run(operation("remembers", stateless=True), 0, 50)
    assert (result.examples, result.findings) == (50, [])


@pytest.mark.parametrize("target", ["fails_above_a_thousand", "awaits_apart", "prints_and_fails", "calls_sys_exit"])
def test_what_fails_is_told_and_made_smaller_as_without(target: str) -> None:
    plain, apart = (smallest(operation(target, stateless=stateless)) for stateless in (False, True))
    for field in ("id", "kind", "type", "message", "location", "example", "count", "output"):
        assert getattr(apart, field) == getattr(plain, field)


@pytest.mark.parametrize(
    ("target", "kind", "type_"),
    [
        ("exits", ErrorKind.KILLED, "exit code 3"),
        ("segfaults", ErrorKind.KILLED, "SIGSEGV"),
        ("kills_itself", ErrorKind.KILLED, "SIGKILL"),
        ("hangs", ErrorKind.TIMEOUT, "hang"),
    ],
)
def test_an_example_that_kills_its_fork_is_kept_with_its_stack(target: str, kind: ErrorKind, type_: str) -> None:
    limit_s = 0.5 if target == "hangs" else 5
    [plain] = run(operation(target, example_timeout_s=limit_s), 0, 120).findings
    result = run(operation(target, example_timeout_s=limit_s, stateless=True), 0, 120)
    [finding] = result.findings
    assert result.examples == 120
    assert (finding.kind, finding.type, finding.id, finding.example) == (kind, type_, plain.id, plain.example)


def test_rejected_examples_are_counted() -> None:
    plain, apart = (run(operation("Cases.test_skips", stateless=stateless)) for stateless in (False, True))
    assert apart.invalid_examples == plain.invalid_examples > 50
