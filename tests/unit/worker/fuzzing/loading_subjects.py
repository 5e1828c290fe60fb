"""Targets whose loading does more than loading: for the tests of zygotes."""

import os
import threading

from hypothesis import given
from hypothesis import strategies as st


def passes(number: int) -> None:
    pass


def zygote(number: int) -> None:
    raise LookupError(os.getppid())


def same_zygote(number: int) -> None:
    raise LookupError(os.getppid())


class TestEnding:
    def setup_class(self) -> None:
        os._exit(0)

    @given(st.integers())
    def test_never(self, number: int) -> None:
        pass


class TestRaising:
    def setup_class(self) -> None:
        raise ValueError("no server")

    @given(st.integers())
    def test_never(self, number: int) -> None:
        pass


class TestThreads:
    def setup_class(self) -> None:
        self.ready = threading.Event()
        threading.Thread(target=self.ready.wait, daemon=True).start()

    @given(st.integers())
    def test_thread(self, number: int) -> None:
        assert threading.active_count() == 2
        assert number < 1000
