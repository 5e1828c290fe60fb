"""One command to its end: ``ProcessManager.run``."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

import pytest
from children import (
    FLOODS_BOTH_PIPES,
    IGNORES_SIGTERM,
    SLEEPS,
    STARTS_A_TREE_THAT_SCATTERS,
    all_end,
    is_running,
    python,
    watched,
)

from fuzzfarm_worker.processes import LOCAL, CommandResult, CommandSpec, Limits, ProcessManager, ProcessStartError
from fuzzfarm_worker.processes.command import CommandProgress
from fuzzfarm_worker.processes.guarded import GuardedSpawner
from fuzzfarm_worker.processes.run import CommandRun
from fuzzfarm_worker.processes.spawner import SpawnRequest


def run(backend=None, **spec) -> CommandResult:
    async def main() -> CommandResult:
        async with ProcessManager(backend=backend) as manager:
            return await manager.run(CommandSpec(**spec))

    return asyncio.run(main())


def test_output_and_exit_code_come_back(backend):
    result = run(backend, command=["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.stdout, result.stderr, result.exit_code, result.signal) == (b"out\n", b"err\n", 3, None)
    assert (result.stdout_bytes, result.stderr_bytes, result.truncated, result.timed_out) == (4, 4, False, False)
    assert 0 < result.duration_s < 30


def test_a_program_ended_by_a_signal_says_which(backend):
    result = run(backend, command=["sh", "-c", "kill -SEGV $$"])
    assert (result.exit_code, result.signal) == (-signal.SIGSEGV, signal.SIGSEGV)


def test_a_running_program_tells_how_far_it_is_and_what_it_uses(backend):
    code = (
        "import sys, time; data = b'x' * 30_000_000\n"
        "while time.process_time() < 0.1: pass\n"  # ticks of the clock that is asked may be 10 ms
        "print('ready', flush=True); sys.stdin.read()"
    )

    async def main(stdin: int, go: int) -> tuple[CommandProgress, CommandRun]:
        async with ProcessManager(backend=backend) as manager:
            runs: list[CommandRun] = []
            ready = asyncio.Event()
            spec = CommandSpec(command=python(code), stdin=stdin)
            ending = asyncio.create_task(
                manager.run(spec, on_start=runs.append, on_output=lambda _name, _data: ready.set())
            )
            await ready.wait()
            progress = runs[0].progress(4)
            assert runs[0].running
            os.close(go)
            await ending
            return progress, runs[0]

    stdin, go = os.pipe()
    progress, ended = asyncio.run(main(stdin, go))
    os.close(stdin)
    assert (progress.stdout_bytes, progress.stdout_tail, progress.stderr_bytes) == (6, b"ady\n", 0)
    assert progress.running_s > 0
    if sys.platform == "linux":
        assert progress.memory_bytes > 30_000_000
        assert progress.cpu_time_s > 0
    assert not ended.running
    assert ended.progress(4).memory_bytes is None


def test_a_mebibyte_on_each_pipe_arrives_whole(backend):
    result = run(backend, command=FLOODS_BOTH_PIPES)
    assert result.stdout == b"o" * (1 << 20)
    assert result.stderr == b"e" * (1 << 20)
    assert not result.truncated


@pytest.mark.parametrize("size", [0, 1, 200_000])
def test_stdin_comes_from_bytes(backend, size):
    assert run(backend, command=["cat"], stdin=b"i" * size).stdout == b"i" * size


def test_stdin_comes_from_a_file(backend, tmp_path: Path):
    (tmp_path / "input").write_bytes(b"from a file")
    assert run(backend, command=["cat"], stdin=tmp_path / "input").stdout == b"from a file"


def test_without_stdin_a_reader_sees_the_end_at_once(backend):
    assert run(backend, command=["cat"], timeout_s=30).timed_out is False


def test_the_environment_is_exactly_the_one_given(backend):
    result = run(backend, command=["/usr/bin/env"], env={"ONLY": "this=one"})
    assert result.stdout == b"ONLY=this=one\n"


def test_an_empty_environment_is_possible(backend):
    assert run(backend, command=["/usr/bin/env"], env={}).stdout == b""


def test_without_an_environment_the_workers_current_one_is_handed_down(backend, monkeypatch):
    monkeypatch.setenv("SET_JUST_NOW", "yes")
    assert b"SET_JUST_NOW=yes\n" in run(backend, command=["env"]).stdout


def test_cwd_is_the_working_directory(backend, tmp_path: Path):
    assert run(backend, command=["pwd"], cwd=tmp_path).stdout.decode().strip() == str(tmp_path)


@pytest.mark.parametrize("size", [0, 50_000])
def test_cwd_below_a_root_is_the_working_directory(backend, tmp_path: Path, size: int):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "a" / "b"):
        result = run(backend, command=["sh", "-c", "pwd", *["a" * size] * 2], cwd=folder, root=str(tmp_path))
        assert result.stdout.decode().strip() == str(folder)


@pytest.mark.parametrize("name", ["link", "link/inner", "../other", "a/../..", "missing"])
def test_cwd_below_a_root_is_reached_over_no_link(backend, tmp_path: Path, name: str):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "other" / "inner").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path / "other")
    with pytest.raises(ProcessStartError, match="working directory"):
        run(backend, command=["pwd"], cwd=root / name, root=str(root))


@pytest.mark.skipif(sys.platform != "linux", reason="the guardian needs Linux")
def test_cwd_is_the_folder_that_was_opened_whatever_its_name_leads_to(tmp_path: Path):
    async def main() -> bytes:
        spawner = GuardedSpawner()
        reader, writer = os.pipe()
        null, folder = os.open(os.devnull, os.O_RDWR), os.open(tmp_path, os.O_RDONLY)
        try:
            child = await spawner.spawn(SpawnRequest(["/bin/pwd"], "/", {}, null, writer, null, Limits(), folder))
            await child.exited
            return os.read(reader, 4096)
        finally:
            spawner.close()
            for fd in (reader, writer, null, folder):
                os.close(fd)

    assert asyncio.run(main()).decode().strip() == str(tmp_path)


def test_a_relative_program_is_found_from_cwd(backend, tmp_path: Path):
    program = tmp_path / "here"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    assert run(backend, command=["./here"], cwd=tmp_path).stdout == b"found\n"


def test_a_command_longer_than_a_packet_arrives_whole(backend):
    arguments = [str(number) * 20_000 for number in range(10)]
    assert run(backend, command=["echo", *arguments]).stdout.decode().split() == arguments


def test_arguments_that_are_no_utf8_arrive_unchanged(backend):
    assert run(backend, command=["printf", "%s", b"\xff\xfe".decode("utf-8", "surrogateescape")]).stdout == b"\xff\xfe"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"command": ["no-such-program-anywhere"]}, "No such file"),
        ({"command": ["/no/such/program"]}, "No such file"),
        ({"command": ["/etc/passwd"]}, "Permission denied"),
        ({"command": ["true"], "cwd": "/no/such/folder"}, "/no/such/folder"),
        ({"command": ["true"], "cwd": "/etc/passwd"}, "/etc/passwd"),
        ({"command": []}, "non-empty"),
        ({"command": "true"}, "list of strings"),
        ({"command": ["true", "nul\0"]}, "NUL"),
        ({"command": ["true"], "env": {"A=B": "c"}}, "A=B"),
        ({"command": ["true"], "env": {"A": "nul\0"}}, "NUL"),
        ({"command": ["true"], "env": {"A": 1}}, "strings"),
        ({"command": ["true"], "stdin": Path("/no/such/input")}, "/no/such/input"),
        ({"command": ["true"], "stdin": 1_000_000}, "Bad file descriptor"),
        ({"command": ["true"], "spill_stdout": Path("/no/such/folder/spill")}, "/no/such/folder/spill"),
        ({"command": ["false"], "cwd": "/\0true"}, "NUL"),
        ({"command": ["true"], "cwd": "\ud800"}, "surrogates"),
        ({"command": ["true", "\ud800"]}, "surrogates"),
        ({"command": ["true"], "env": {"A": "\ud800"}}, "surrogates"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_what_cannot_start_is_one_kind_of_error_with_the_reason(backend, spec, reason):
    with pytest.raises(ProcessStartError, match=reason) as caught:
        run(backend, **spec)
    system_said_no = reason in ("No such file", "Permission denied", "Bad file descriptor") or reason.startswith("/")
    assert isinstance(caught.value.__cause__, OSError) == system_said_no


def test_a_failed_start_leaves_nothing_in_the_table(backend):
    async def main() -> None:
        async with ProcessManager(backend=backend) as manager:
            with pytest.raises(ProcessStartError):
                await manager.run(CommandSpec(command=["/no/such/program"]))
            stats = await manager.get_stats()
            assert (stats["total_managed"], stats["started"], stats["failed_starts"]) == (0, 0, 1)

    asyncio.run(main())


def test_a_deleted_working_directory_of_the_worker_is_a_start_error(backend, tmp_path: Path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ProcessStartError, match="working directory of this process is gone"):
        run(backend, command=["true"])


@pytest.mark.skipif(sys.platform != "linux", reason="the guardian needs Linux")
def test_what_cannot_be_sent_to_the_guardian_leaves_nothing_behind():
    async def main() -> None:
        async with ProcessManager() as manager:
            for spec in [{"command": ["true", "\ud800"]}] + 2 * [{"command": ["true"], "env": {"A": "\ud800"}}]:
                with pytest.raises(ProcessStartError, match="surrogates"):
                    await manager.run(CommandSpec(**spec))
            spawner = manager._session.spawner
            assert (spawner._starting, spawner._children) == ({}, {})

    asyncio.run(main())


def test_an_error_in_on_start_ends_the_command_and_is_raised(backend):
    def refuse(run: CommandRun) -> None:
        raise LookupError("not what I wanted")

    async def main() -> None:
        pids: list[int] = []
        async with ProcessManager(backend=backend, on_event=lambda event: pids.append(event.pid)) as manager:
            await manager.run(CommandSpec(command=["true"]))
            descriptors = len(os.listdir("/proc/self/fd"))
            with pytest.raises(LookupError, match="not what I wanted"):
                await manager.run(CommandSpec(command=SLEEPS), on_start=refuse)
            assert not is_running(pids[-1])
            assert await manager.list_processes() == []
            assert len(os.listdir("/proc/self/fd")) == descriptors

    asyncio.run(main())


def test_programs_that_end_at_once_are_no_start_errors(backend):
    async def main() -> None:
        async with ProcessManager(backend=backend) as manager:
            results = await asyncio.gather(*(manager.run(CommandSpec(command=["true"])) for _ in range(100)))
            assert {result.exit_code for result in results} == {0}

    asyncio.run(main())


@pytest.mark.parametrize("written", [0, 1, 999, 1000, 1001, 500_000])
def test_the_cap_is_exact_to_the_byte_and_the_rest_is_counted(backend, written):
    result = run(backend, command=python(f"import os; os.write(1, b'x' * {written})"), max_output_bytes=1000)
    assert result.stdout == b"x" * min(written, 1000)
    assert result.stdout_bytes == written
    assert result.truncated == (written > 1000)


def test_the_cap_holds_for_each_stream_alone(backend):
    result = run(backend, command=FLOODS_BOTH_PIPES, max_output_bytes=700_000)
    assert (len(result.stdout), len(result.stderr)) == (700_000, 700_000)
    assert (result.stdout_bytes, result.stderr_bytes) == (1 << 20, 1 << 20)


def test_the_end_of_the_output_can_be_kept_too(backend):
    result = run(backend, command=["seq", "100000"], max_output_bytes=20, keep_tail_bytes=13)
    assert result.stdout == b"1\n2\n3\n4" + b"99999\n100000\n"


def test_text_has_no_half_characters_where_beginning_and_end_were_cut(backend):
    result = run(backend, command=["printf", "é" * 50], max_output_bytes=10, keep_tail_bytes=5)
    whole = "é".encode()
    assert (result.stdout, result.stdout_head_bytes) == (whole * 2 + whole[:1] + whole[1:] + whole * 2, 5)
    assert result.stdout_text == "éééé"
    assert run(backend, command=["printf", "é" * 5], max_output_bytes=10, keep_tail_bytes=5).stdout_text == "é" * 5


def test_all_output_can_be_spilled_to_a_file(backend, tmp_path: Path):
    result = run(backend, command=["seq", "100000"], max_output_bytes=4, spill_stdout=tmp_path / "all")
    assert result.stdout == b"1\n2\n"
    assert (tmp_path / "all").read_text().split() == [str(number) for number in range(1, 100_001)]


def test_a_spill_that_fails_ends_the_command_and_is_raised(backend):
    async def main() -> None:
        async with ProcessManager(backend=backend) as manager:
            for command in (["yes"], ["echo", "little"]):
                with pytest.raises(OSError, match="No space left"):
                    await manager.run(CommandSpec(command=command, spill_stdout=Path("/dev/full"), max_output_bytes=1))
                assert await manager.list_processes() == []

    asyncio.run(main())


def test_a_command_can_be_ended_at_the_cap(backend):
    result = run(backend, command=["yes"], max_output_bytes=10_000, stop_at_cap=True)
    assert (result.signal, len(result.stdout), result.truncated) == (signal.SIGKILL, 10_000, True)


def test_a_timeout_asks_first(backend):
    answers = ["sh", "-c", "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.01; done"]
    result = run(backend, command=answers, timeout_s=0.5, grace_s=20)
    assert (result.timed_out, result.exit_code, result.stdout) == (True, 5, b"ready\nasked\n")


def test_a_timeout_forces_what_does_not_listen(backend):
    result = run(backend, command=IGNORES_SIGTERM, timeout_s=0.5, grace_s=0.1)
    assert (result.timed_out, result.signal, result.stdout) == (True, signal.SIGKILL, b"ready\n")


def scattered_pids(result: CommandResult) -> list[int]:
    pids = [int(pid) for pid in result.stdout.split()]
    assert len(pids) == 3
    return pids


def test_nothing_survives_a_timeout():
    result = run(command=STARTS_A_TREE_THAT_SCATTERS, timeout_s=1.0, grace_s=0)
    with watched(scattered_pids(result)) as alive:
        assert alive == []


def test_nothing_survives_the_end_of_its_leader():
    code = STARTS_A_TREE_THAT_SCATTERS[-1].replace("\ntime.sleep(1000)\n", "\n")
    result = run(command=python(code), timeout_s=30)
    assert result.exit_code == 0
    with watched(scattered_pids(result)) as alive:
        assert alive == []


def test_cancellation_kills_the_whole_tree_and_waits_for_it():
    async def main() -> list[int]:
        seen = asyncio.Event()
        output = bytearray()

        def note(_: str, data: memoryview) -> None:
            output.extend(data)
            if b"\n" in output:
                seen.set()

        async with ProcessManager() as manager:
            spec = CommandSpec(command=STARTS_A_TREE_THAT_SCATTERS)
            task = asyncio.create_task(manager.run(spec, on_output=note))
            await seen.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await manager.list_processes() == []
            with watched(int(pid) for pid in output.split()) as alive:
                assert alive == []
            return [int(pid) for pid in output.split()]

    assert len(asyncio.run(main())) == 3


def test_cancellation_while_starting_leaves_no_process(backend):
    async def main() -> None:
        async with ProcessManager(backend=backend) as manager:
            tasks = [asyncio.create_task(manager.run(CommandSpec(command=SLEEPS))) for _ in range(10)]
            await asyncio.sleep(0)  # let each reach its first await
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            assert (await manager.get_stats())["running"] == 0

    asyncio.run(main())


def test_shutdown_ends_commands_that_run():
    async def main() -> None:
        started = asyncio.Event()
        manager = ProcessManager(on_event=lambda _: started.set())
        task = asyncio.create_task(manager.run(CommandSpec(command=SLEEPS)))
        await started.wait()
        [process] = await manager.list_processes()
        with watched([process["pid"]]) as alive:
            await manager.shutdown()
            assert all_end(alive, within_s=1)
        assert (await task).signal == signal.SIGTERM

    asyncio.run(main())


PRINTS_ITS_LIMITS = python(
    "import resource as r\n"
    "print([r.getrlimit(k) for k in (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_CORE)])"
)


SOME_LIMITS = Limits(memory_bytes=1 << 30, cpu_s=7, file_size_bytes=1 << 20, open_files=50, processes=10_000, core=0)


def test_limits_hold_from_the_start(backend):
    code = (
        "import resource as r\n"
        "kinds = (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_CORE)\n"
        "print(*(r.getrlimit(kind)[0] for kind in kinds))"
    )
    result = run(backend, command=python(code), limits=SOME_LIMITS)
    assert [int(soft) for soft in result.stdout.split()] == [1 << 30, 7, 1 << 20, 50, 0]


def test_raised_limits_are_put_back_for_the_program_and_what_it_has_forked(backend):
    # It tries to escape as fast as it can; each process then says when its limits have become final.
    code = (
        "import os, resource as r\n"
        "kinds = (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_NPROC, r.RLIMIT_CORE)\n"
        "for k in kinds:\n  r.setrlimit(k, (r.getrlimit(k)[1],) * 2)\n"
        "child = os.fork()\n"
        "final = [(1 << 30, 1 << 30), (7, 8), (1 << 20, 1 << 20), (50, 50), (10000, 10000), (0, 0)]\n"
        "final[1] = final[1] if r.getrlimit(r.RLIMIT_CPU) != (8, 8) else (8, 8)\n"
        "while [r.getrlimit(k) for k in kinds] != final: pass\n"
        "print('final', flush=True)\n"
        "if child: os.wait()"
    )
    result = run(backend, command=python(code), limits=SOME_LIMITS, timeout_s=20)
    assert result.stdout == b"final\n" * 2, result.stderr


def test_limits_of_one_command_do_not_reach_the_next(backend):
    async def main() -> None:
        async with ProcessManager(backend=backend) as manager:
            before = await manager.run(CommandSpec(command=PRINTS_ITS_LIMITS))
            await manager.run(CommandSpec(command=["true"], limits=Limits(cpu_s=1, open_files=20, core=0)))
            assert (await manager.run(CommandSpec(command=PRINTS_ITS_LIMITS))).stdout == before.stdout

    asyncio.run(main())


def test_a_limit_above_the_workers_own_hard_limit_is_that_limit(backend):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    result = run(backend, command=python(code), limits=Limits(open_files=hard + 1))
    assert result.stdout.split() == [str(hard).encode()] * 2


def test_the_memory_limit_stops_an_allocation(backend):
    result = run(backend, command=python("bytearray(1 << 30)"), limits=Limits(memory_bytes=256 << 20))
    assert result.exit_code == 1
    assert b"MemoryError" in result.stderr


def test_the_cpu_limit_ends_a_busy_loop(backend):
    result = run(backend, command=["sh", "-c", "while :; do :; done"], limits=Limits(cpu_s=1), timeout_s=30)
    assert result.signal == signal.SIGXCPU


def test_the_file_limit_stops_a_large_file(backend, tmp_path: Path):
    command = ["sh", "-c", "head -c 100000 /dev/zero > big"]
    result = run(backend, command=command, cwd=tmp_path, limits=Limits(file_size_bytes=4096))
    assert result.exit_code != 0
    assert (tmp_path / "big").stat().st_size == 4096


@pytest.mark.parametrize(
    "limits", [{"cpu_s": -1}, {"memory_bytes": (32 << 20) - 1}, {"open_files": 7}, {"core": 2**64}], ids=str
)
def test_limits_must_make_sense(limits):
    [name] = limits
    with pytest.raises(ValueError, match=f"limit {name} must be .* to .*, got"):
        Limits(**limits)


def test_a_missing_program_under_limits_is_a_start_error(backend):
    with pytest.raises(ProcessStartError):
        run(backend, command=["no-such-program-anywhere"], limits=Limits(core=0))


def test_peak_memory_and_cpu_time_are_measured(backend):
    result = run(backend, command=python("x = b'x' * (100 << 20)\nfor _ in range(10**6): pass"))
    assert (result.peak_memory_bytes or 0) > 100 << 20
    assert 0 < (result.cpu_time_s or 0) < 30


def test_peak_memory_is_not_that_of_a_large_worker():
    assert (run(command=["true"]).peak_memory_bytes or 0) < 20 << 20


def test_ignored_signals_of_the_worker_are_not_inherited(backend):
    result = run(backend, command=["sh", "-c", "kill -PIPE $$; echo survived"])
    assert (result.signal, result.stdout) == (signal.SIGPIPE, b"")


def test_a_program_inherits_no_descriptors_of_the_worker(backend):
    result = run(backend, command=["ls", "/proc/self/fd"])
    assert result.stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is the folder that ls reads


def test_on_output_sees_every_byte_as_it_comes(backend):
    pieces: list[tuple[str, bytes]] = []

    async def main() -> None:
        async with ProcessManager(backend=backend) as manager:
            spec = CommandSpec(command=FLOODS_BOTH_PIPES, max_output_bytes=10)
            result = await manager.run(spec, on_output=lambda name, data: pieces.append((name, bytes(data))))
            assert result.stdout == b"o" * 10

    asyncio.run(main())
    assert all(data for _, data in pieces)
    assert b"".join(data for name, data in pieces if name == "stdout") == b"o" * (1 << 20)
    assert b"".join(data for name, data in pieces if name == "stderr") == b"e" * (1 << 20)


def test_an_error_in_on_output_ends_the_command_and_is_raised(backend):
    def refuse(_: str, __: memoryview) -> None:
        raise LookupError("not what I wanted")

    async def main() -> None:
        async with ProcessManager(backend=backend) as manager:
            with pytest.raises(LookupError, match="not what I wanted"):
                await manager.run(CommandSpec(command=["yes"]), on_output=refuse)
            assert await manager.list_processes() == []

    asyncio.run(main())


@pytest.mark.parametrize("any_backend", [None, LOCAL], ids=["default", "local"])
def test_it_runs_on_every_event_loop(run_loop, any_backend):
    async def main() -> None:
        async with ProcessManager(backend=any_backend) as manager:
            result = await manager.run(CommandSpec(command=FLOODS_BOTH_PIPES))
            assert len(result.stdout) == len(result.stderr) == 1 << 20

    run_loop(main())


def test_one_manager_serves_several_event_loops_one_after_the_other(backend):
    manager = ProcessManager(backend=backend)
    for word in ("one", "two", "three"):
        result = asyncio.run(manager.run(CommandSpec(command=["echo", word])))
        assert result.stdout.decode() == word + "\n"
    asyncio.run(manager.shutdown())


def test_a_manager_that_was_shut_down_refuses():
    async def main() -> None:
        manager = ProcessManager()
        await manager.shutdown()
        with pytest.raises(RuntimeError, match="shut down"):
            await manager.run(CommandSpec(command=["true"]))

    asyncio.run(main())
