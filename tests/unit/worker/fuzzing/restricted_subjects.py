"""Targets that take more than they may, or look for the network."""

import os
import resource
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

PORT = "port"
"""File in the temporary directory with the port of a server that listens outside."""


def opens_many_files(number: int) -> None:
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
    for file in files:
        os.close(file)


def writes_much(number: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(3 << 20))


def prints_much_in_all(number: int) -> None:
    os.write(1, b"x" * 400_000)


def tells_its_processes(number: int) -> None:
    assert resource.getrlimit(resource.RLIMIT_NPROC) == (5_000, 5_000)


def spin() -> None:
    while True:
        pass


def computes_in_a_thread(number: int) -> None:
    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    thread.join()


def computes_at_last(number: int) -> None:
    compute(0.2)
    while number % 50 == 7:
        pass


def compute(cpu_s: float) -> None:
    until = time.process_time() + cpu_s
    while time.process_time() < until:
        pass


def computes_a_little(number: int) -> None:
    compute(0.4)


def fails_after_a_while(number: int) -> None:
    compute(0.15)
    assert abs(number) < 2


def handles_the_signal(number: int) -> None:
    def stop(*_: object) -> None:
        raise InterruptedError("enough")

    signal.signal(signal.SIGXCPU, stop)
    spin()


def connects(number: int) -> None:
    port = int(Path(tempfile.gettempdir(), PORT).read_text())
    socket.create_connection(("127.0.0.1", port)).close()


def connects_to_itself(number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


class TestThreads:
    """Its loading starts a thread, so each child loads it."""

    def setup_class(self) -> None:
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    @given(st.integers())
    def test_connects(self, number: int) -> None:
        connects(number)
