import subprocess
import sys

import pytest
from shard_runs import operation, run

from fuzzfarm_shared.outcomes import ErrorKind

EXCEPTION, KILLED, TIMEOUT = ErrorKind.EXCEPTION, ErrorKind.KILLED, ErrorKind.TIMEOUT


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("demo_targets:fuzz_ini", {(EXCEPTION, "IndexError")}),
        ("demo_targets:fuzz_ini_round_trip", {(EXCEPTION, "AssertionError")}),
        ("demo_targets:fuzz_day_of_year", {(EXCEPTION, "AssertionError")}),
        ("demo_targets:fuzz_power", {(EXCEPTION, "RecursionError")}),
        ("demo_targets:fuzz_average", {(EXCEPTION, "ValueError")}),
        ("demo_targets:fuzz_arguments", {(EXCEPTION, "SystemExit")}),
        ("demo_targets:fuzz_strip_comments", {(TIMEOUT, "hang")}),
        ("demo_targets:fuzz_checksum", {(KILLED, "SIGSEGV")}),
        ("demo_targets:fuzz_fetch", {(EXCEPTION, "LookupError")}),
        ("demo_tests:test_decode_inverts_encode", {(EXCEPTION, "ValueError"), (EXCEPTION, "IndexError")}),
        ("demo_tests:test_versions_sort_by_number", {(EXCEPTION, "AssertionError")}),
        ("demo_tests:test_upper_is_stable", set()),
        ("demo_tests:TestStack.test_depth_never_passes_five", {(EXCEPTION, "AssertionError")}),
    ],
)
def test_a_demo_shows_the_bug_that_it_names(target: str, found: set[tuple[ErrorKind, str]]) -> None:
    result = run(operation(f"fuzzfarm.{target}", example_timeout_s=0.5), 0, 1000)
    assert {(finding.kind, finding.type) for finding in result.findings} >= found
    assert bool(result.findings) == bool(found)


def test_plain_demo_targets_need_no_hypothesis() -> None:
    code = "import sys, fuzzfarm.demo_targets; sys.exit('hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=50).returncode == 0
