"""One call for one command."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time

import pytest
from children import STARTS_A_TREE_THAT_SCATTERS, is_running, python

from fuzzfarm_worker.processes import (
    ProcessStartError,
    execute_subprocess_async,
    execute_subprocess_streaming,
)


def test_output_and_exit_code():
    assert asyncio.run(execute_subprocess_async(["sh", "-c", "echo hello; exit 2"])) == ("hello\n", 2)


def test_output_and_bytes_read_blocking():
    assert execute_subprocess_streaming(["echo", "hello"]) == ("hello\n", 6)


def test_the_blocking_twin_works_where_a_loop_runs():
    async def main() -> tuple[str, int]:
        return execute_subprocess_streaming(["echo", "hello"], timeout=20)

    assert asyncio.run(main()) == ("hello\n", 6)


def test_the_size_is_bounded_and_no_character_is_cut():
    command = python("import sys; sys.stdout.buffer.write('é'.encode() * 1000)")
    assert asyncio.run(execute_subprocess_async(command, max_output_size=101)) == ("é" * 50, 0)
    assert execute_subprocess_streaming(command, max_output_size=101) == ("é" * 50, 2000)


def scatters_into(path) -> list[str]:
    code = STARTS_A_TREE_THAT_SCATTERS[-1].replace(
        "print(pids.decode(), flush=True)", f"open({str(path)!r}, 'wb').write(pids)"
    )
    return python(code)


def test_a_timeout_kills_the_whole_tree(tmp_path):
    with pytest.raises(asyncio.TimeoutError, match="longer than 1"):
        asyncio.run(execute_subprocess_async(scatters_into(tmp_path / "pids"), timeout=1))
    pids = [int(pid) for pid in (tmp_path / "pids").read_bytes().split()]
    assert len(pids) == 3
    assert not any(is_running(pid) for pid in pids)


def test_a_timeout_of_the_blocking_twin_raises_too():
    with pytest.raises(TimeoutError):
        execute_subprocess_streaming(["sleep", "1000"], timeout=0.1)


def test_ctrl_c_ends_a_command_of_the_blocking_twin_where_a_loop_runs(tmp_path):
    def interrupt() -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.005)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    async def main() -> None:
        script = f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 30"
        execute_subprocess_streaming(["sh", "-c", script])

    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    # Not by asyncio.run, which catches a first Ctrl-C itself.
    with contextlib.closing(asyncio.new_event_loop()) as loop, pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(main())
    assert time.monotonic() - began < 20
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_what_cannot_start_is_an_error():
    with pytest.raises(ProcessStartError):
        asyncio.run(execute_subprocess_async(["/no/such/program"]))
    with pytest.raises(ProcessStartError):
        execute_subprocess_streaming(["/no/such/program"])


def test_many_calls_run_at_once():
    async def main() -> list[tuple[str, int]]:
        return await asyncio.gather(*(execute_subprocess_async(["echo", str(number)]) for number in range(30)))

    assert asyncio.run(main()) == [(f"{number}\n", 0) for number in range(30)]
