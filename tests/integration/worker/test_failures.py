"""What operations may do wrong, and what their errors say; the worker and the other operations go on."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fuzzfarm import BatchAggregate, CallOperation, ErrorKind, Farm, OperationError, SubprocessJob

WAIT_S = 30.0


def call(name: str, *args: Any, **options: Any) -> CallOperation:
    target = name if ":" in name else f"farm_targets:{name}"
    return CallOperation(key="it", target=target, args=list(args), **options)


async def aggregate_of(settings: dict[str, Any], *operations: Any) -> BatchAggregate:
    """Run the operations with a neighbour, which has to come through."""
    async with Farm.connect(**settings) as farm:
        neighbour = CallOperation(key="neighbour", target="farm_targets:echo", args=["fine"])
        aggregate = await (await farm.submit([*operations, neighbour])).wait(WAIT_S)
        assert aggregate.results["neighbour"] == "fine"
        return aggregate


def error_of(settings: dict[str, Any], operation: Any) -> OperationError:
    error = asyncio.run(aggregate_of(settings, operation)).errors["it"]
    assert error.worker
    assert error.attempt >= 1
    return error


RAISED = {
    "exit_with": ([7], "SystemExit", "7"),
    "interrupt": ([], "KeyboardInterrupt", "typed"),
    "raise_mute": ([], "farm_targets.MuteError", "(its message cannot be shown: RuntimeError)"),
    "raise_odd": ([], "farm_targets.OddBaseError", "odd"),
    "raise_group": ([], "ExceptionGroup", "several (2 sub-exceptions)"),
    "raise_stop_iteration": ([], "StopIteration", "stop"),
    "time_out_by_itself": ([], "TimeoutError", "the socket timed out"),
    "fail": (["line 1\nline 2 \ud800 \x1b[31m"], "ValueError", "line 1\nline 2 \ud800 \x1b[31m"),
    "recurse": ([], "RecursionError", "maximum recursion depth exceeded"),
}


@pytest.mark.parametrize("isolation", ["worker", "child"])
@pytest.mark.parametrize("name", RAISED)
def test_whatever_a_call_raises_is_its_own_error(shared_farm: Any, name: str, isolation: Any) -> None:
    args, type_name, message = RAISED[name]
    error = error_of(shared_farm, call(name, *args, isolation=isolation))
    assert (error.kind, error.type) == (ErrorKind.EXCEPTION, type_name)
    assert error.message.startswith(message)
    assert error.traceback


def test_a_coroutine_that_raises_cancelled_error_fails_alone(shared_farm: Any) -> None:
    error = error_of(shared_farm, call("raise_cancelled"))
    assert (error.kind, error.type) == (ErrorKind.EXCEPTION, "asyncio.exceptions.CancelledError")


def test_a_wrong_number_of_arguments_is_an_error_of_the_operation(shared_farm: Any) -> None:
    error = error_of(shared_farm, call("fail", 1, 2, 3))
    assert error.type == "TypeError"
    assert "takes 1 positional argument but 3 were given" in error.message


def test_an_endless_message_is_clipped(shared_farm: Any) -> None:
    error = error_of(shared_farm, call("fail_with_long_message"))
    assert len(error.message) < 11_000
    assert "990,000 characters left out" in error.message
    assert len(error.traceback or "") < 51_000


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module:f", "cannot import module 'no_such_module' .* ModuleNotFoundError"),
        ("farm_targets:no_such_name", "module 'farm_targets' has no 'no_such_name': check the spelling"),
        ("farm_targets:Box.no_such_name", "module 'farm_targets' has no 'Box.no_such_name': check the spelling"),
        ("broken_import:f", "cannot import module 'broken_import' .* RuntimeError: this module needs a license"),
        ("exiting_import:f", "cannot import module 'exiting_import' .* SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("isolation", ["worker", "child"])
def test_a_target_that_cannot_be_loaded_is_rejected_with_its_reason(
    shared_farm: Any, target: str, reason: str, isolation: Any
) -> None:
    error = error_of(shared_farm, call(target, isolation=isolation))
    assert error.kind is ErrorKind.REJECTED
    with pytest.raises(ValueError, match=reason):
        raise ValueError(error.message)


def test_a_target_that_is_no_callable_fails_its_operation(shared_farm: Any) -> None:
    error = error_of(shared_farm, call("NOT_CALLABLE"))
    assert "not callable" in error.message


@pytest.mark.parametrize("isolation", ["worker", "child"])
def test_a_value_that_cannot_travel_names_its_operation(shared_farm: Any, isolation: Any) -> None:
    error = error_of(shared_farm, call("unsendable", isolation=isolation))
    assert error.kind is ErrorKind.INVALID_RESULT
    assert "a value of type builtins.object cannot be sent: return plain data" in error.message
    assert "'it'" in error.message


def test_a_result_that_is_too_large_names_its_operation(shared_farm: Any) -> None:
    error = error_of(shared_farm, call("large", 2_000_000))
    assert error.kind is ErrorKind.INVALID_RESULT
    assert "'it': the result takes 2,000,005 bytes and the limit is 1,000,000: write it to a file" in error.message


def test_a_result_that_is_too_large_for_a_child_says_so(shared_farm: Any) -> None:
    error = error_of(shared_farm, call("large", 64 * 1024 * 1024, isolation="child"))
    assert error.kind is ErrorKind.INVALID_RESULT
    assert "bytes and a child may return 67,108,864: write it to a file" in error.message


def test_many_large_results_are_recorded_in_several_segments(shared_farm: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            batch = await farm.submit(CallOperation.many("farm_targets:large", [900_000] * 12))
            aggregate = await batch.wait(WAIT_S)
            assert {len(value) for value in aggregate.results.values()} == {900_000}
            assert len(aggregate.results) == 12

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "operation",
    [
        call("pause", 60, timeout_s=0.2),
        call("block", 3, timeout_s=0.2),
        call("swallow_cancellation", 1, timeout_s=0.2),
        call("pause", 60, timeout_s=0.5, isolation="child"),
        SubprocessJob(key="it", command=["sleep", "60"], timeout_s=0.2),
    ],
    ids=["async", "sync", "stubborn", "child", "program"],
)
def test_an_operation_over_its_time_is_a_timeout(shared_farm: Any, operation: Any) -> None:
    started = time.monotonic()
    assert error_of(shared_farm, operation).kind is ErrorKind.TIMEOUT
    assert time.monotonic() - started < 10.0


def test_retries_wait_for_doubling_delays_and_end_with_the_first_success(shared_farm: Any, tmp_path: Path) -> None:
    operation = call("fail_before", str(tmp_path), "tries", 3, retries=5, retry_delay_s=0.1)

    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            started = time.monotonic()
            outcome = await anext((await farm.submit([operation])).stream())
            assert (outcome.ok, outcome.value) == (True, 3)
            assert 0.1 + 0.2 <= time.monotonic() - started < 5.0

    asyncio.run(scenario())


def test_the_last_try_gives_the_error(shared_farm: Any, tmp_path: Path) -> None:
    operation = call("fail_before", str(tmp_path), "tries", 99, retries=2, retry_delay_s=0.01)
    assert error_of(shared_farm, operation).message == "try 3"


def test_a_child_that_kills_itself_costs_only_its_operation(shared_farm: Any) -> None:
    error = error_of(shared_farm, call("kill_self", isolation="child"))
    assert (error.kind, error.signal) == (ErrorKind.KILLED, "SIGKILL")
    assert "the child was ended by SIGKILL" in error.message


def test_an_import_that_kills_costs_a_child_and_not_the_worker(shared_farm: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm:
            before = {worker.pid for worker in await farm.workers()}
            aggregate = await aggregate_of(shared_farm, call("deadly_import:f", isolation="child"))
            assert aggregate.errors["it"].kind is ErrorKind.REJECTED
            assert "importing 'deadly_import' ends its interpreter (SIGKILL)" in aggregate.errors["it"].message
            assert {worker.pid for worker in await farm.workers()} == before

    asyncio.run(scenario())


def test_a_child_that_exits_without_an_answer_is_named(shared_farm: Any) -> None:
    error = error_of(shared_farm, call("os:_exit", 5, isolation="child"))
    assert error.kind is ErrorKind.KILLED
    assert "exit code 5" in error.message


def test_what_a_child_prints_does_not_disturb_its_result(shared_farm: Any) -> None:
    aggregate = asyncio.run(aggregate_of(shared_farm, call("print_much", isolation="child")))
    assert aggregate.results["it"] == "printed"


@pytest.mark.parametrize("isolation", ["worker", "child"])
@pytest.mark.parametrize("value", [{1, 2}, (1, (2,)), 2**200, b"\0", "\ud800", {1: None}, float("inf")], ids=repr)
def test_values_keep_their_type_there_and_back(shared_farm: Any, value: Any, isolation: Any) -> None:
    aggregate = asyncio.run(aggregate_of(shared_farm, call("echo", value, isolation=isolation)))
    assert aggregate.results["it"] == value
    assert type(aggregate.results["it"]) is type(value)


def test_a_method_can_be_called_by_name(shared_farm: Any) -> None:
    assert asyncio.run(aggregate_of(shared_farm, call("Box.double", 4))).results["it"] == 8


def test_a_program_that_fails_is_a_result_and_an_error_only_when_checked(shared_farm: Any) -> None:
    command = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    plain = SubprocessJob(key="plain", command=command)
    checked = SubprocessJob(key="checked", command=command, check=True)
    killed = SubprocessJob(key="killed", command=["sh", "-c", "kill -SEGV $$"])
    aggregate = asyncio.run(aggregate_of(shared_farm, plain, checked, killed))
    result = aggregate.results["plain"]
    assert (result.exit_code, result.stdout, result.stderr, result.signal) == (3, "out\n", "err\n", None)
    assert aggregate.results["killed"].signal == "SIGSEGV"
    error = aggregate.errors["checked"]
    assert (error.kind, error.type, error.traceback) == (ErrorKind.EXCEPTION, "CalledProcessError", "err\n")
    assert "ended with exit code 3" in error.message


def test_output_over_its_limit_is_cut_and_counted(shared_farm: Any) -> None:
    job = SubprocessJob(key="it", command=["head", "-c", "100000", "/dev/zero"], max_output_bytes=10, binary=True)
    result = asyncio.run(aggregate_of(shared_farm, job)).results["it"]
    assert (result.stdout, result.stdout_bytes, result.truncated) == (b"\0" * 10, 100_000, True)


def test_output_that_is_cut_ends_in_no_half_character(shared_farm: Any) -> None:
    job = SubprocessJob(key="it", command=["sh", "-c", "printf ééé; printf ééé >&2"], max_output_bytes=3)
    result = asyncio.run(aggregate_of(shared_farm, job)).results["it"]
    assert (result.stdout, result.stderr, result.truncated) == ("é", "é", True)


def test_a_result_says_what_the_program_used(shared_farm: Any) -> None:
    code = "import time; data = bytearray(b'x' * 50_000_000)\nwhile time.process_time() < 0.2: pass"
    job = SubprocessJob(key="it", command=[sys.executable, "-c", code])
    result = asyncio.run(aggregate_of(shared_farm, job)).results["it"]
    assert result.peak_memory_bytes > 50_000_000
    assert result.cpu_time_s >= 0.2
    assert result.duration_s >= result.cpu_time_s * 0.9


def test_a_cancel_kills_what_a_job_has_started_in_other_sessions_too(shared_farm: Any, tmp_path: Path) -> None:
    script = f"setsid sh -c 'echo $$ > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/pid && exec sleep 1000' & wait"

    async def scenario() -> int:
        async with Farm.connect(**shared_farm) as farm, asyncio.timeout(WAIT_S):
            batch = await farm.submit([SubprocessJob(key="it", command=["sh", "-c", script], timeout_s=2 * WAIT_S)])
            while not (tmp_path / "pid").exists():
                await asyncio.sleep(0.01)
            grandchild = os.pidfd_open(int((tmp_path / "pid").read_text()))
            assert await batch.cancel() == 1
            return grandchild

    grandchild = asyncio.run(scenario())
    assert select.select([grandchild], [], [], 10.0)[0], "the grandchild still runs"
    os.close(grandchild)


def test_a_program_gets_its_input_and_its_variables(shared_farm: Any) -> None:
    job = SubprocessJob(key="it", command=["sh", "-c", "cat; echo $WORD"], stdin=b"in ", env={"WORD": "x"})
    assert asyncio.run(aggregate_of(shared_farm, job)).results["it"].stdout == "in x\n"


def test_a_program_that_is_not_there_is_rejected(shared_farm: Any) -> None:
    error = error_of(shared_farm, SubprocessJob(key="it", command=["no-such-program-here"]))
    assert error.kind is ErrorKind.REJECTED
    assert "no program 'no-such-program-here' on this worker: install it" in error.message


def test_a_folder_that_is_not_there_fails_the_job(shared_farm: Any) -> None:
    error = error_of(shared_farm, SubprocessJob(key="it", command=["true"], cwd="/no/such/folder"))
    assert error.kind in {ErrorKind.EXCEPTION, ErrorKind.REJECTED}
    assert "/no/such/folder" in error.message


@pytest.mark.parametrize("name", ["loop", "n" * 1_000], ids=["a link to itself", "too long"])
def test_a_folder_that_has_no_path_is_rejected_and_harms_no_neighbour(
    shared_farm: Any, tmp_path: Path, name: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    error = error_of(shared_farm, SubprocessJob(key="it", command=["true"], cwd=str(tmp_path / name)))
    assert error.kind in {ErrorKind.EXCEPTION, ErrorKind.REJECTED}
    assert name in error.message


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PATH", "PYTHONPATH", "FUZZFARM_SIGNING_KEY"])
def test_a_job_may_not_set_variables_that_load_code(shared_farm: Any, name: str) -> None:
    error = error_of(shared_farm, SubprocessJob(key="it", command=["true"], env={name: "x"}))
    assert error.kind is ErrorKind.REJECTED
    assert f"a job may not set {name}" in error.message


def test_an_import_has_a_deadline_and_a_call_without_a_limit_has_none(shared_farm: Any) -> None:
    calls = [CallOperation(key=name, target=f"lease_deadlines:{name}", timeout_s=None) for name in ("at_import", "now")]
    results = asyncio.run(aggregate_of(shared_farm, *calls)).results
    # Leases of chunks that have just ended may still be in memory beside the one of these calls.
    assert any(deadline is not None for deadline in results["at_import"])
    assert None in results["now"]


def test_a_call_in_a_child_leaves_its_neighbours_their_deadline(shared_farm: Any) -> None:
    child = CallOperation(key="child", target="farm_targets:echo", isolation="child")
    results = asyncio.run(aggregate_of(shared_farm, child, CallOperation(key="now", target="lease_deadlines:now")))
    assert any(deadline is not None for deadline in results.results["now"])
