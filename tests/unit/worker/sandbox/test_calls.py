"""What calls in children return, and what becomes of them when children die."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from children import all_end, is_running, watched

from fuzzfarm_shared.errors import TargetError, UnsupportedValueError
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_worker.failures import OperationFailedError
from fuzzfarm_worker.sandbox import Sandbox, group

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="/proc, or a subreaper")

Run = Callable[[Callable[[Sandbox], Any]], Any]


def name(function: str) -> str:
    return f"sandbox_targets:{function}"


async def error_of(sandbox: Sandbox, function: str, *args: Any, **options: Any) -> OperationError:
    with pytest.raises(OperationFailedError) as caught:
        await sandbox.call(name(function), args, **options)
    return caught.value.error


async def written(path: Path) -> str:
    """The text of a file, as soon as there is one."""
    while not path.exists():
        await asyncio.sleep(0.005)
    return path.read_text()


def test_a_call_returns_its_value_with_its_type(run_on_each_loop: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert await sandbox.call(name("echo"), [(1, {2})]) == (1, {2})
        assert await sandbox.call(name("echo"), [1], {"option": 2}) == [1, {"option": 2}]
        assert await sandbox.call(name("echo_async"), ["awaited"]) == "awaited"
        with pytest.raises(UnsupportedValueError):
            await sandbox.call(name("echo"), [object()])

    run_on_each_loop(scenario)


def test_ten_thousand_calls_come_back_to_their_callers(run_on_each_loop: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert await asyncio.gather(*(sandbox.call(name("echo"), [n]) for n in range(10_000))) == list(range(10_000))

    run_on_each_loop(scenario)


def test_calls_one_after_another_share_a_child(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert [await sandbox.call(name("count_calls")) for _ in range(5)] == [1, 2, 3, 4, 5]

    run(scenario)


def test_a_death_costs_one_call_and_every_other_runs_exactly_once(run_on_each_loop: Run, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    ways = ["exit", "return", "raise", "return", "kill", *["return"] * 35] * 10

    async def scenario(sandbox: Sandbox) -> None:
        calls = (sandbox.call(name("note"), [str(path), n, how]) for n, how in enumerate(ways))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for number, (how, outcome) in enumerate(zip(ways, outcomes, strict=True)):
            if how == "return":
                assert outcome == number
                continue
            assert isinstance(outcome, OperationFailedError)
            error = outcome.error
            expected = {
                "exit": (ErrorKind.KILLED, None, "the child ended with exit code 3"),
                "kill": (ErrorKind.KILLED, "SIGKILL", "the child was ended by SIGKILL"),
                "raise": (ErrorKind.EXCEPTION, None, str(number)),
            }
            assert (error.kind, error.signal, error.message) == expected[how]

    run_on_each_loop(scenario)
    assert sorted(map(int, path.read_text().split())) == list(range(len(ways)))


def test_a_crash_shows_what_was_printed_and_the_stack(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        error = await error_of(sandbox, "crash", "the last words")
        assert (error.kind, error.signal) == (ErrorKind.KILLED, "SIGSEGV")
        assert error.traceback is not None
        assert "the last words" in error.traceback
        assert "in crash" in error.traceback

    run(scenario)


def test_a_call_over_its_time_is_killed_and_those_behind_it_are_not(run_on_each_loop: Run, tmp_path: Path) -> None:
    path = tmp_path / "runs"

    async def scenario(sandbox: Sandbox) -> None:
        for n in range(100):  # now the child is sent many calls ahead
            await sandbox.call(name("echo"), [n])
        hang = asyncio.create_task(error_of(sandbox, "note", str(path), -1, "hang", timeout_s=0.3))
        calls = [sandbox.call(name("note"), [str(path), n, "return"], timeout_s=60) for n in range(20)]
        assert await asyncio.gather(*calls) == list(range(20))
        error = await hang
        assert error.kind is ErrorKind.TIMEOUT
        assert error.message == "the call's child took longer than 0.3 s and was killed"

    run_on_each_loop(scenario)
    assert sorted(map(int, path.read_text().split())) == list(range(-1, 20))


def test_calls_do_not_wait_behind_one_that_never_ends(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pid"

    async def scenario(sandbox: Sandbox) -> None:
        for n in range(100):
            await sandbox.call(name("echo"), [n])
        endless = asyncio.create_task(sandbox.call(name("tell_and_wait"), [str(path)]))
        calls = [sandbox.call(name("echo"), [n]) for n in range(200)]
        assert await asyncio.gather(*calls) == list(range(200))
        assert not endless.done()
        endless.cancel()

    run(scenario)


def test_short_waits_are_spread_over_children_too(run: Run) -> None:
    """Calls of 5 ms never look stuck, and would go through one child one by one."""

    async def scenario(sandbox: Sandbox) -> None:
        pids = await asyncio.gather(*(sandbox.call(name("wait_and_pid"), [0.005]) for _ in range(1_000)))
        assert len(set(pids)) > 4

    run(scenario)


def test_calls_that_wait_are_spread_over_children(run: Run, tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(10)]

    async def scenario(sandbox: Sandbox) -> None:
        calls = [asyncio.create_task(sandbox.call(name("tell_and_wait"), [str(path)])) for path in paths]
        assert len({await written(path) for path in paths}) == 10
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)

    run(scenario)


def test_cancelling_kills_the_child_at_once(run_on_each_loop: Run, tmp_path: Path) -> None:
    path = tmp_path / "pid"

    async def scenario(sandbox: Sandbox) -> None:
        call = asyncio.create_task(sandbox.call(name("tell_and_wait"), [str(path)]))
        child = int(await written(path))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not is_running(child)
        assert await sandbox.call(name("echo"), ["goes on"]) == "goes on"

    run_on_each_loop(scenario)


def test_cancelled_calls_that_have_not_begun_never_run(run: Run, tmp_path: Path) -> None:
    runs, path = tmp_path / "runs", tmp_path / "pid"

    async def scenario(sandbox: Sandbox) -> None:
        for n in range(100):
            await sandbox.call(name("echo"), [n])
        first = asyncio.create_task(sandbox.call(name("tell_and_wait"), [str(path)]))
        others = [asyncio.create_task(sandbox.call(name("note"), [str(runs), n, "return"])) for n in range(20)]
        await asyncio.sleep(0)
        for call in others:
            call.cancel()
        await asyncio.wait(others)
        await written(path)
        first.cancel()
        await asyncio.wait([first])
        await sandbox.call(name("note"), [str(runs), 99, "return"])

    run(scenario)
    assert runs.read_text() == "99\n"


@linux_only
@pytest.mark.parametrize("tag", [None, 0, -1], ids=["its own tag", "a lower tag", "no tag"])
def test_what_a_child_started_ends_with_it_in_other_sessions_too(run: Run, tmp_path: Path, tag: int | None) -> None:
    path = tmp_path / "pid"

    async def scenario(sandbox: Sandbox) -> None:
        assert (await error_of(sandbox, "start_and_exit", str(path), tag)).kind is ErrorKind.KILLED
        assert not is_running(int(path.read_text()))

    run(scenario)


def test_a_target_that_forks_and_returns_twice_answers_once(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert await sandbox.call(name("fork_and_return")) == "parent"
        assert await sandbox.call(name("echo"), ["next"]) == "next"

    run(scenario)


def test_a_call_that_waited_for_its_child_tells_when_it_ran(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        called = time.monotonic()
        value, started, took_s = await sandbox.timed_call(name("echo"), [1])
        assert value == 1
        assert called < started <= started + took_s < time.monotonic()
        with pytest.raises(OperationFailedError) as caught:
            await sandbox.call(name("note"), [os.devnull, 0, "hang"], timeout_s=0.1)
        assert caught.value.span is not None
        assert caught.value.span[1] >= 0.1

    run(scenario)


def test_tasks_that_a_call_leaves_behind_end_with_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "late"

    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.call(name("leave_a_task_behind"), [str(path)])
        assert await sandbox.call(name("echo_async"), [1]) == 1

    run(scenario)
    assert not path.exists()


@linux_only
def test_memory_beyond_the_limit_is_told_as_such(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        error = await error_of(sandbox, "allocate", 1 << 30, memory_bytes=512_000_000)
        assert (error.kind, error.type) == (ErrorKind.MEMORY, "MemoryError")
        assert await sandbox.call(name("allocate"), [1_000], memory_bytes=512_000_000) == 1_000

    run(scenario)


def test_a_result_that_cannot_travel_says_so(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        with pytest.raises(OperationFailedError, match=r"a value of type builtins.object cannot be sent"):
            await sandbox.call("builtins:object")

    run(scenario)


@linux_only
def test_a_child_finds_nothing_of_its_worker(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUZZFARM_SIGNING_KEY", "x" * 40)
    monkeypatch.setenv("SECRET_OF_THE_HOST", "x")

    async def scenario(sandbox: Sandbox) -> None:
        found = await sandbox.call(name("surroundings"))
        assert not [variable for variable in found["variables"] if variable.startswith(("FUZZFARM_", "SECRET_"))]
        # The one socket is that of the answers.
        assert (found["input"], found["leads_its_session"], found["sockets"], found["inherited"]) == ("", True, 1, 0)

    run(scenario)


def test_a_target_that_writes_to_the_workers_socket_loses_its_child(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        error = await error_of(sandbox, "write_into_every_socket")
        assert error.kind is ErrorKind.KILLED
        assert "wrote to its worker's socket" in error.message
        assert await sandbox.call(name("echo"), ["goes on"]) == "goes on"

    run(scenario)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module:f", "ModuleNotFoundError"),
        ("broken_import:f", "RuntimeError: this module needs a license"),
        ("exiting_import:f", "SystemExit: 3"),
        ("deadly_import:f", r"importing 'deadly_import' ends its interpreter \(SIGKILL\)"),
        ("sandbox_targets:nothing", "has no 'nothing': check the spelling"),
    ],
)
def test_a_target_that_cannot_be_loaded_is_refused_with_its_reason(run: Run, target: str, reason: str) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        with pytest.raises(TargetError, match=reason):
            await sandbox.call(target)

    run(scenario)


def test_a_target_of_another_module_is_refused_unless_listed(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        with pytest.raises(TargetError, match="comes from 'time': allow it by its exact name"):
            await sandbox.call("sandbox_targets:time.sleep", [0], listed=False)
        assert await sandbox.call("sandbox_targets:time.sleep", [0], listed=True) is None

    run(scenario)


def test_a_module_that_starts_threads_is_imported_by_each_child(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert await sandbox.call("threaded_import:double", [4], timeout_s=60) == 8

    run(scenario)


@linux_only
def test_a_program_that_a_module_starts_at_its_import_ends_with_the_zygote(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> int:
        helper = await sandbox.call("helper_import:helper")
        with pytest.raises(OperationFailedError):
            await sandbox.call("helper_import:end")
        assert await sandbox.call("helper_import:helper") == helper
        return int(helper)

    assert not is_running(run(scenario))


@linux_only
def test_a_zygote_that_is_killed_takes_the_running_call_and_no_other(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        killing = asyncio.create_task(error_of(sandbox, "kill_zygote"))
        await asyncio.sleep(0)
        calls = [sandbox.call(name("echo"), [n]) for n in range(20)]
        assert await asyncio.gather(*calls) == list(range(20))
        error = await killing
        assert error.kind is ErrorKind.KILLED
        assert "killed with its zygote" in error.message

    run(scenario)


def test_systems_without_waitid_and_pidfds_do_the_same(run: Run) -> None:
    async def scenario(sandbox: Sandbox) -> None:
        assert await sandbox.call("lesser_system:echo", [1]) == 1
        with pytest.raises(OperationFailedError, match="exit code 5"):
            await sandbox.call("lesser_system:end", [5])
        with pytest.raises(OperationFailedError, match="took longer than"):
            await sandbox.call("lesser_system:hang", timeout_s=0.1)
        assert await sandbox.call("lesser_system:echo", [2]) == 2

    run(scenario)


def test_children_that_end_before_their_first_call_are_no_endless_loop(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "SERVE", "os:_exit")
    monkeypatch.setattr(group, "RESTART_S", 0.001)

    async def scenario(sandbox: Sandbox) -> None:
        error = await error_of(sandbox, "echo")
        assert error.kind is ErrorKind.KILLED
        assert "children end before they begin this call; the last one: exit code 1" in error.message
        assert "TypeError: _exit() takes" in str(error.traceback)

    run(scenario)


def test_leaving_the_sandbox_cancels_what_runs(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    calls: list[asyncio.Task[Any]] = []

    async def scenario(sandbox: Sandbox) -> list[asyncio.Task[Any]]:
        calls.append(asyncio.create_task(sandbox.call(name("tell_and_wait"), [str(path)])))
        child = int(await written(path))
        with watched([child]) as fds:
            await sandbox.aclose()
            assert all_end(fds)
        await asyncio.wait(calls)
        return calls

    assert run(scenario)[0].cancelled()
