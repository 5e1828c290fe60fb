"""Limits and the network of fuzz operations, each with a target that goes beyond them."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from replays import as_json, replay
from shard_runs import operation, pool, progress_of, run

from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding
from fuzzfarm_worker.fuzzing.restrictions import Restrictions

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
PATIENT_S = 60.0
"""Wall-clock time that never ends an example first."""


def restricted(target: str, *, network: bool = True, stateless: bool = False, **limits: int) -> FuzzOperation:
    return operation(
        f"restricted_subjects:{target}",
        limits=limits,
        network=network,
        stateless=stateless,
        example_timeout_s=PATIENT_S,
    )


def found(fuzz: FuzzOperation, examples: int = 1) -> list[tuple[ErrorKind, str, str]]:
    return [(finding.kind, finding.type, finding.message) for finding in run(fuzz, 0, examples).findings]


@pytest.mark.parametrize("stateless", [False, True])
def test_a_target_opens_no_more_files_than_it_may(*, stateless: bool) -> None:
    assert found(restricted("opens_many_files", stateless=stateless)) == []
    [(kind, type_, message)] = found(restricted("opens_many_files", open_files=32, stateless=stateless))
    assert (kind, type_, "Too many open files" in message) == (ErrorKind.EXCEPTION, "OSError", True)


def test_a_finding_of_too_many_files_still_tells_its_line() -> None:
    [finding] = run(restricted("opens_many_files", open_files=8), 0, 1).findings
    assert finding.signature.endswith("files = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]")


def test_a_target_writes_no_larger_file_than_it_may() -> None:
    assert found(restricted("writes_much")) == []
    [(kind, type_, message)] = found(restricted("writes_much", file_size_bytes=1 << 20))
    assert (kind, type_, "File too large" in message) == (ErrorKind.EXCEPTION, "OSError", True)


def test_what_examples_print_is_no_file_that_grows_with_them() -> None:
    assert found(restricted("prints_much_in_all", file_size_bytes=1 << 20), 20) == []


def test_a_target_has_the_processes_that_it_may_have() -> None:
    assert found(restricted("tells_its_processes", processes=5_000)) == []


@pytest.mark.parametrize("stateless", [False, True])
def test_a_target_computes_no_longer_than_it_may(*, stateless: bool) -> None:
    [finding] = run(restricted("computes_in_a_thread", cpu_s=1, stateless=stateless), 0, 1).findings
    assert (finding.kind, finding.type) == (ErrorKind.KILLED, "SIGXCPU")
    assert finding.location.endswith("in spin")
    assert "in spin" in finding.traceback


def test_a_child_may_use_more_cpu_in_all_than_one_example() -> None:
    assert found(restricted("computes_a_little", cpu_s=1), 8) == []


def test_making_a_failure_smaller_counts_each_run_for_itself() -> None:
    result = run(restricted("fails_after_a_while", cpu_s=1), 0, 8)
    assert [finding.type for finding in result.findings] == ["AssertionError"]
    assert result.children_replaced == 0


def test_an_example_that_computes_too_long_is_kept_and_the_rest_runs() -> None:
    result = run(restricted("computes_at_last", cpu_s=1), 0, 30)
    assert [finding.type for finding in result.findings] == ["SIGXCPU"]
    assert result.examples == 30


def test_a_target_may_handle_the_signal_itself() -> None:
    [(kind, type_, message)] = found(restricted("handles_the_signal", cpu_s=1))
    assert (kind, type_, message) == (ErrorKind.EXCEPTION, "InterruptedError", "enough")


def shell(script: str, **fields: Any) -> FuzzOperation:
    return FuzzOperation(command=["/bin/sh", "-c", script], example_timeout_s=PATIENT_S, **fields)


def test_a_command_has_its_own_count_of_cpu_seconds() -> None:
    says = '[ "$(ulimit -St) $(ulimit -Ht)" = "7 8" ] || exit 3'
    assert found(shell(says, limits={"cpu_s": 7}, crash_exit_codes=[3]), 3) == []
    [(kind, type_, _)] = found(shell("while :; do :; done", limits={"cpu_s": 1}))
    assert (kind, type_) == (ErrorKind.KILLED, "SIGXCPU")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Listen on the loopback of the host; targets find the port in their temporary directory."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        (tmp_path / "port").write_text(str(listening.getsockname()[1]))
        yield


@LINUX
@pytest.mark.parametrize("target", ["connects", "TestThreads.test_connects"], ids=["forked", "loaded by the child"])
@pytest.mark.usefixtures("server")
def test_a_target_without_network_does_not_reach_its_host(target: str) -> None:
    assert found(restricted(target)) == []
    [(kind, type_, _)] = found(restricted(target, network=False))
    assert (kind, type_) == (ErrorKind.EXCEPTION, "ConnectionRefusedError")


@LINUX
def test_a_target_without_network_has_a_loopback() -> None:
    assert found(restricted("connects_to_itself", network=False)) == []


ALONE = """
import sys
sys.path[:0] = {folders!r}
from fuzzfarm_shared.errors import TargetError
from test_restrictions import found, restricted
try:
    print(found(restricted("connects_to_itself", network=False)))
except TargetError as exc:
    print(exc)
"""


@LINUX
def test_a_host_without_namespaces_refuses_a_target_without_network() -> None:
    """Such a host is a user namespace that may have no network namespaces in it."""
    script = ALONE.format(folders=sys.path)
    begin = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    if subprocess.run([*begin, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this host has no user namespaces")
    no_more = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"'
    done = subprocess.run(
        [*begin, no_more, "-", sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    says = "'restricted_subjects:connects_to_itself' is to run without network, which needs a network namespace"
    assert done.stdout.startswith(says), done
    assert done.stdout.endswith("or leave network on\n")


def test_children_are_shared_only_by_operations_with_equal_restrictions() -> None:
    async def main() -> list[int]:
        started = []
        async with pool(1) as children:
            for limits in ({}, {"open_files": 99}, {"open_files": 99}):
                await progress_of(children, restricted("prints_much_in_all", **limits), 0, 1)
                started.append(children.started)
        return started

    assert asyncio.run(main()) == [1, 2, 2]


def replayed(finding: Finding, **changes: Any) -> str:
    options = ("--runs", "2", "--example-timeout-s", str(PATIENT_S))
    _, verdict = replay({**as_json(finding), **changes}, *options, TMPDIR=os.environ.get("TMPDIR", "/tmp"))
    return str(verdict["verdict"])


@LINUX
@pytest.mark.usefixtures("server")
def test_a_finding_is_replayed_under_its_own_restrictions() -> None:
    [finding] = run(restricted("opens_many_files", open_files=32), 0, 1).findings
    assert (finding.limits, finding.network) == ({"open_files": 32}, True)
    assert (replayed(finding), replayed(finding, limits={})) == ("still_failing", "fixed")
    [finding] = run(restricted("connects", network=False), 0, 1).findings
    assert (replayed(finding), replayed(finding, network=True)) == ("still_failing", "fixed")


def test_a_finding_of_too_much_cpu_is_replayed_as_it_was() -> None:
    [finding] = run(restricted("computes_in_a_thread", cpu_s=1), 0, 1).findings
    options = ("--runs", "2", "--example-timeout-s", str(PATIENT_S))
    _, verdict = replay(as_json(finding), *options)
    assert (verdict["verdict"], verdict["same"]) == ("still_failing", True)


def test_limits_that_a_finding_cannot_have_are_told_in_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"its limits: .*greater than or equal to 1") as caught:
        Restrictions.told_by({"limits": {"cpu_s": 0}})
    assert "\n" not in str(caught.value)
