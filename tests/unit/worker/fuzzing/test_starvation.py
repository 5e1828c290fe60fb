"""A child that waits for the processor does not hang."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fuzzfarm_worker.fuzzing.starvation import waited_for_processor_ns

SPIN = "import sys; print(flush=True)\nwhile True: pass"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs two processes on one processor")
def test_processes_that_share_a_processor_wait_for_it() -> None:
    one = {next(iter(os.sched_getaffinity(0)))}
    children = [subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for child in children:
            os.sched_setaffinity(child.pid, one)
            assert child.stdout is not None
            child.stdout.readline()
        before = waited_for_processor_ns(children[0].pid)
        while waited_for_processor_ns(children[0].pid) - before < 50_000_000:
            assert all(child.poll() is None for child in children)
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_a_process_that_is_gone_has_waited_for_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert waited_for_processor_ns(child.pid) == 0
