"""Signals to a worker, and what ends one that does not end by itself."""

from __future__ import annotations

import signal
import subprocess
import sys

LONGEST_S = 20.0
NEVER_ENDS = """
import asyncio
from fuzzfarm_worker import leaving

async def end():
    await asyncio.Event().wait()

async def main():
    leaving.Departure(GRACE, lambda: print("leave", flush=True), end).listen()
    print("ready", flush=True)
    await asyncio.Event().wait()

leaving.LONGEST_LEAVE_S = 0.01
asyncio.run(main())
"""


def stubborn(grace_s: float) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", NEVER_ENDS.replace("GRACE", str(grace_s))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert said(process) == b"ready\n"
    return process


def said(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def exit_code(process: subprocess.Popen[bytes]) -> int:
    with process:
        return process.wait(LONGEST_S)


def test_a_second_signal_asks_again_and_a_third_kills() -> None:
    process = stubborn(600)
    for number in (signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        assert said(process) == b"leave\n"
    process.terminate()
    assert exit_code(process) == -signal.SIGKILL


def test_a_worker_that_does_not_end_after_its_grace_period_kills_itself() -> None:
    process = stubborn(0.01)
    process.terminate()
    assert exit_code(process) == -signal.SIGKILL
