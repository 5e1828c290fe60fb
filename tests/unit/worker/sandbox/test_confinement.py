"""Confining as the user that workers should have: one without privileges."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent

import pytest

from fuzzfarm_worker.processes import Limits

AS_NOBODY = 54_321
"""A user with no process of its own, so that limits of a user count what the test starts."""

PR_SET_DUMPABLE = 4
"""prctl(2)."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root of Linux can become another user"
)

BEGIN = f"""
import ctypes, encodings.idna, os, resource, socket, traceback  # all now: the other user may not read it
from fuzzfarm_worker.sandbox.confinement import NO_NAMESPACE, Confinement, confine
from fuzzfarm_worker.sandbox.network import leave_network
os.setgroups([])
os.setgid({AS_NOBODY})
os.setuid({AS_NOBODY})
ctypes.CDLL(None).prctl({PR_SET_DUMPABLE}, 1)  # as after an exec: or the files of /proc/self are root's

def forked(function):
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            os._exit(function(parent))
        finally:
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def printed(script: str) -> str:
    """What a script prints that runs as another user, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + dedent(script)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stderr == ""
    return done.stdout


def skip_without_user_namespaces() -> None:
    done = subprocess.run(["unshare", "--user", "true"], user=AS_NOBODY, capture_output=True, check=False, timeout=50)
    if done.returncode != 0:
        pytest.skip("this host gives no user namespaces to users without privileges")


@pytest.mark.parametrize("network", [True, False])
def test_a_child_starts_no_more_processes_than_it_may(*, network: bool) -> None:
    limits = list(Limits(processes=6).as_tuple())
    script = f"""
        def fork_on(parent):
            confine(Confinement({limits}, {network}, None, os.dup(2)), parent)
            started = 0
            try:
                while started < 50:
                    if os.fork() == 0:
                        os.close(holder)
                        os.read(held, 1)
                        os._exit(0)
                    started += 1
            except BlockingIOError:
                pass
            return started

        held, holder = os.pipe()
        print(forked(fork_on))
    """
    if not network:
        skip_without_user_namespaces()
    # In a user namespace of its own only the child and what it starts count; else its parent does, too.
    assert printed(script) == ("4\n" if network else "5\n")


def test_a_user_without_privileges_can_leave_the_network() -> None:
    script = """
        server = socket.create_server(("127.0.0.1", 0))

        def connect(parent):
            before = os.geteuid(), os.getegid()
            leave_network()
            assert (os.geteuid(), os.getegid()) == before
            with socket.create_server(("127.0.0.1", 0)) as own:
                socket.create_connection(own.getsockname()).close()
            try:
                socket.create_connection(server.getsockname())
            except ConnectionRefusedError:
                return 7
            return 1

        print(forked(connect))
    """
    skip_without_user_namespaces()
    assert printed(script) == "7\n"


def test_a_child_without_a_namespace_ends_with_an_exit_code_of_its_own() -> None:
    script = """
        def confined(parent):
            os.closerange(3, 99)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # so that nothing can be brought up
            confine(Confinement([None] * 6, False, None, 2), parent)
            return 0

        print(forked(confined) == NO_NAMESPACE)
    """
    assert printed(script) == "True\n"
