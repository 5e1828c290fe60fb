"""Processes that are started, kept, watched and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time

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

from fuzzfarm_worker.processes import (
    ProcessConfig,
    ProcessEvent,
    ProcessManager,
    ProcessStartError,
    WatchdogConfig,
)
from fuzzfarm_worker.processes.process import UNREAD_BYTES


def with_manager(test, **options):
    async def main():
        async with ProcessManager(**options) as manager:
            return await asyncio.wait_for(test(manager), 50)

    return asyncio.run(main())


def test_a_process_talks_over_its_pipes(backend, run_loop):
    if "Transport" in backend.pipes.__name__ and run_loop is not asyncio.run:
        pytest.skip("asyncio's own transports need asyncio's own loop")

    async def main() -> None:
        async with ProcessManager(backend=backend) as manager:
            process = await manager.start_process(ProcessConfig(command=["cat"]))
            assert process.returncode is None
            process.stdin.write(b"one\ntwo\n")
            await process.stdin.drain()
            assert await process.stdout.readline() == b"one\n"
            assert await process.stdout.readexactly(4) == b"two\n"
            process.stdin.close()
            await process.stdin.wait_closed()
            assert await process.wait() == 0
            assert process.returncode == 0
            assert process.stdout.at_eof()

    run_loop(main())


def test_a_socket_can_be_the_standard_input(backend):
    async def test(manager: ProcessManager) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = await manager.start_process(ProcessConfig(command=["cat"], stdin=theirs.fileno()))
            assert process.stdin is None
            ours.sendall(b"through a socket")
            ours.shutdown(socket.SHUT_WR)
            assert await process.communicate() == (b"through a socket", b"")

    with_manager(test, backend=backend)


def test_communicate_exchanges_everything(backend):
    async def test(manager: ProcessManager) -> None:
        script = ["sh", "-c", "cat; echo done >&2"]
        process = await manager.start_process(ProcessConfig(command=script))
        assert await process.communicate(b"x" * 500_000) == (b"x" * 500_000, b"done\n")

    with_manager(test, backend=backend)


def test_communicate_returns_everything_however_much_it_is(backend):
    data = os.urandom(1 << 20) * 24

    async def test(manager: ProcessManager) -> None:
        process = await manager.start_process(ProcessConfig(command=["cat"]))
        stdout, stderr = await process.communicate(data)
        assert (len(stdout), stdout == data, stderr) == (len(data), True, b"")

    with_manager(test, backend=backend)


def test_communicate_survives_a_program_that_does_not_read(backend):
    async def test(manager: ProcessManager) -> None:
        process = await manager.start_process(ProcessConfig(command=["true"]))
        assert await process.communicate(b"x" * 5_000_000) == (b"", b"")
        assert process.returncode == 0

    with_manager(test, backend=backend)


def test_a_flood_that_nobody_reads_blocks_neither_the_child_nor_wait(backend):
    async def test(manager: ProcessManager) -> None:
        process = await manager.start_process(ProcessConfig(command=FLOODS_BOTH_PIPES))
        assert await manager.wait_for_process(process.pid) == 0
        assert await process.stdout.read() == b"o" * (1 << 20)

    with_manager(test, backend=backend)


def test_unread_output_beyond_the_bound_is_dropped_and_counted():
    async def test(manager: ProcessManager) -> None:
        written = UNREAD_BYTES + 5_000_000
        process = await manager.start_process(ProcessConfig(command=["head", "-c", str(written), "/dev/zero"]))
        await process.wait()
        assert len(await process.stdout.read()) == UNREAD_BYTES
        status = await manager.get_process_status(process.pid)
        assert status["dropped_bytes"] == 5_000_000

    with_manager(test)


def test_what_cannot_start_is_a_start_error(backend):
    async def test(manager: ProcessManager) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for config in (
            ProcessConfig(command=["/no/such/program"]),
            ProcessConfig(command=["true"], cwd="/no/such/folder"),
            ProcessConfig(command=["true"], env={"": "x"}),
        ):
            with pytest.raises(ProcessStartError):
                await manager.start_process(config)
        await asyncio.sleep(0)  # transports close one turn of the loop after they were told to
        assert await manager.list_processes() == []
        assert len(os.listdir("/proc/self/fd")) <= before + 3  # the session: channel, null device

    with_manager(test, backend=backend)


def test_status_tells_the_life_of_a_process(backend):
    async def test(manager: ProcessManager) -> None:
        process = await manager.start_process(ProcessConfig(command=SLEEPS, name="sleeper"))
        status = await manager.get_process_status(process.pid)
        assert status["pid"] == process.pid
        assert (status["name"], status["command"], status["status"]) == ("sleeper", SLEEPS, "running")
        assert status["exit_code"] is None
        assert abs(status["started_at"] - time.time()) < 30
        assert await manager.stop_process(process.pid)
        status = await manager.get_process_status(process.pid)
        assert (status["status"], status["exit_code"]) == ("stopped", -signal.SIGTERM)
        assert await manager.get_process_status(1) is None

    with_manager(test, backend=backend)


def test_a_process_that_ends_by_itself_is_finished(backend):
    async def test(manager: ProcessManager) -> None:
        process = await manager.start_process(ProcessConfig(command=["sh", "-c", "exit 4"]))
        assert await manager.wait_for_process(process.pid, timeout=30) == 4
        assert (await manager.get_process_status(process.pid))["status"] == "finished"
        assert await manager.stop_process(process.pid)
        assert (await manager.get_process_status(process.pid))["status"] == "finished"

    with_manager(test, backend=backend)


def test_waiting_has_a_bound_and_leaves_the_process_running(backend):
    async def test(manager: ProcessManager) -> None:
        process = await manager.start_process(ProcessConfig(command=SLEEPS))
        assert await manager.wait_for_process(process.pid, timeout=0.05) is None
        assert process.returncode is None
        assert await manager.wait_for_process(1) is None

    with_manager(test, backend=backend)


def test_cancelling_a_wait_leaves_the_process_running():
    async def test(manager: ProcessManager) -> None:
        process = await manager.start_process(ProcessConfig(command=SLEEPS))
        waiting = [asyncio.create_task(process.wait()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert process.returncode is None
        process.kill()
        assert await waiting[1] == -signal.SIGKILL

    with_manager(test)


async def started_stubborn(manager: ProcessManager) -> int:
    process = await manager.start_process(ProcessConfig(command=IGNORES_SIGTERM))
    assert await process.stdout.readline() == b"ready\n"
    return process.pid


def test_stop_forces_what_ignores_the_request(backend):
    async def test(manager: ProcessManager) -> None:
        pid = await started_stubborn(manager)
        began = time.monotonic()
        assert await manager.stop_process(pid)
        assert 0.9 < time.monotonic() - began < 1.5
        assert (await manager.get_process_status(pid))["exit_code"] == -signal.SIGKILL

    with_manager(test, backend=backend)


def test_a_forced_stop_does_not_wait(backend):
    async def test(manager: ProcessManager) -> None:
        pid = await started_stubborn(manager)
        began = time.monotonic()
        assert await manager.stop_process(pid, force=True)
        assert time.monotonic() - began < 0.9

    with_manager(test, backend=backend)


def test_twenty_stubborn_trees_stop_together(backend):
    async def test(manager: ProcessManager) -> None:
        await asyncio.gather(*(started_stubborn(manager) for _ in range(20)))
        began = time.monotonic()
        await manager.stop_all_processes()
        assert time.monotonic() - began < 1.5
        assert {status["status"] for status in await manager.list_processes()} == {"stopped"}

    with_manager(test, backend=backend)


def test_cancelling_a_stop_forces_it():
    async def test(manager: ProcessManager) -> None:
        pid = await started_stubborn(manager)
        stop = asyncio.create_task(manager.stop_process(pid))
        await asyncio.sleep(0)
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop
        assert not is_running(pid)

    with_manager(test)


async def scattered_tree(manager: ProcessManager) -> tuple[int, list[int]]:
    process = await manager.start_process(ProcessConfig(command=STARTS_A_TREE_THAT_SCATTERS))
    pids = [int(pid) for pid in (await process.stdout.readline()).split()]
    assert len(pids) == 3
    assert all(is_running(pid) for pid in pids)
    return process.pid, pids


@pytest.mark.parametrize("force", [False, True])
def test_nothing_of_a_tree_survives_a_stop(force):
    async def test(manager: ProcessManager) -> None:
        leader, pids = await scattered_tree(manager)
        assert await manager.stop_process(leader, force=force)
        with watched([leader, *pids]) as alive:
            assert alive == []

    with_manager(test)


def test_a_stop_leaves_other_trees_alone():
    async def test(manager: ProcessManager) -> None:
        first, first_pids = await scattered_tree(manager)
        _, second_pids = await scattered_tree(manager)
        assert await manager.stop_process(first, force=True)
        assert not any(is_running(pid) for pid in first_pids)
        assert all(is_running(pid) for pid in second_pids)

    with_manager(test)


def test_nothing_survives_a_shutdown():
    async def main() -> None:
        manager = ProcessManager()
        leader, pids = await scattered_tree(manager)
        with watched([leader, *pids]) as alive:
            assert len(alive) == 4
            await manager.shutdown()
            await manager.shutdown()
            assert all_end(alive, within_s=1)
        with pytest.raises(RuntimeError, match="shut down"):
            await manager.start_process(ProcessConfig(command=SLEEPS))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("signal_type", "signum"), [("timeout", signal.SIGTERM), ("interrupt", signal.SIGINT), ("force", signal.SIGKILL)]
)
def test_timeout_signals_reach_the_process(backend, signal_type, signum):
    async def test(manager: ProcessManager) -> None:
        process = await manager.start_process(ProcessConfig(command=SLEEPS))
        assert await manager.send_timeout_signal(process.pid, signal_type) is True
        assert await process.wait() == -signum
        assert await manager.send_timeout_signal(process.pid, signal_type) is False
        assert await manager.send_timeout_signal(1, signal_type) is False

    with_manager(test, backend=backend)


def test_timeout_signals_reach_all_that_run(backend):
    async def test(manager: ProcessManager) -> None:
        ended = await manager.start_process(ProcessConfig(command=["true"]))
        await ended.wait()
        running = [await manager.start_process(ProcessConfig(command=SLEEPS)) for _ in range(3)]
        sent = await manager.send_timeout_signal_to_all("timeout")
        assert sent == {ended.pid: False, **{process.pid: True for process in running}}
        assert [await process.wait() for process in running] == [-signal.SIGTERM] * 3

    with_manager(test, backend=backend)


def test_an_unknown_timeout_signal_is_refused():
    async def test(manager: ProcessManager) -> None:
        with pytest.raises(ValueError, match="'gently'"):
            await manager.send_timeout_signal(1, "gently")

    with_manager(test)


def test_finished_processes_are_listed_until_they_are_cleaned_up(backend):
    async def test(manager: ProcessManager) -> None:
        processes = [await manager.start_process(ProcessConfig(command=["true"])) for _ in range(3)]
        sleeper = await manager.start_process(ProcessConfig(command=SLEEPS))
        for process in processes:
            await process.wait()
        stats = await manager.get_stats()
        assert (stats["total_managed"], stats["running"], stats["finished"], stats["stopped"]) == (4, 1, 3, 0)
        assert await manager.cleanup_finished_processes() == 3
        assert [status["pid"] for status in await manager.list_processes()] == [sleeper.pid]
        assert await manager.cleanup_finished_processes() == 0

    with_manager(test, backend=backend)


def test_events_tell_of_starts_stops_and_ends():
    events: list[ProcessEvent] = []

    async def test(manager: ProcessManager) -> None:
        process = await manager.start_process(ProcessConfig(command=SLEEPS, name="told"))
        await manager.stop_process(process.pid)
        assert [(event.kind, event.pid, event.name) for event in events] == [
            ("started", process.pid, "told"),
            ("killed", process.pid, "told"),
            ("finished", process.pid, "told"),
        ]
        assert events[-1].exit_code == -signal.SIGTERM

    with_manager(test, on_event=events.append)


def test_an_event_callback_that_fails_changes_nothing(caplog):
    def fail(_: ProcessEvent) -> None:
        raise LookupError("cannot take it")

    async def test(manager: ProcessManager) -> None:
        process = await manager.start_process(ProcessConfig(command=["true"]))
        assert await process.wait() == 0

    with_manager(test, on_event=fail)
    assert "cannot take it" in caplog.text


def test_create_with_config_passes_the_watchdogs_settings():
    config = WatchdogConfig(process_timeout=3.0)
    assert ProcessManager.create_with_config(config).watchdog.config is config
    assert ProcessManager.create_with_config().watchdog.config == WatchdogConfig()


def test_a_signal_after_the_end_reaches_nobody(backend):
    async def test(manager: ProcessManager) -> None:
        process = await manager.start_process(ProcessConfig(command=["true"]))
        await process.wait()
        process.send_signal(signal.SIGKILL)
        process.terminate()
        process.kill()
        assert (process.returncode, process.status) == (0, "finished")

    with_manager(test, backend=backend)


def test_ten_thousand_starts_would_leak_nothing_because_a_hundred_do_not(backend):
    async def test(manager: ProcessManager) -> None:
        async def some(count: int) -> int:
            for _ in range(count):
                process = await manager.start_process(ProcessConfig(command=["true"]))
                await process.communicate()
            await manager.cleanup_finished_processes()
            return len(os.listdir("/proc/self/fd"))

        assert await some(2) == await some(100)

    with_manager(test, backend=backend)


def test_output_counts_as_activity():
    async def test(manager: ProcessManager) -> None:
        chatty = python("import time\nfor _ in range(12):\n  print('.', flush=True); time.sleep(0.1)")
        process = await manager.start_process(ProcessConfig(command=chatty, timeout=0.8))
        assert await process.wait() == 0

    with_manager(test, watchdog_config=WatchdogConfig(check_interval=0.05, extra_buffer=0.0))


def test_each_process_has_its_own_inactivity_limit():
    async def test(manager: ProcessManager) -> None:
        patient = await manager.start_process(ProcessConfig(command=SLEEPS, timeout=100.0))
        endless = await manager.start_process(ProcessConfig(command=SLEEPS, timeout=None))
        spared = await manager.start_process(ProcessConfig(command=SLEEPS, timeout=0.1, auto_kill=False))
        silent = await manager.start_process(ProcessConfig(command=SLEEPS, timeout=0.1))
        assert await silent.wait() == -signal.SIGTERM
        assert (await manager.get_process_status(silent.pid))["status"] == "stopped"
        assert [process.returncode for process in (patient, endless, spared)] == [None] * 3

    with_manager(test, watchdog_config=WatchdogConfig(check_interval=0.05, extra_buffer=0.1, max_hang_time=25.0))
