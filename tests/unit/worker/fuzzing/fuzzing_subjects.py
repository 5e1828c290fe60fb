"""Targets for the tests of fuzzing."""

import asyncio
import ctypes
import os
import signal
import sys
import tempfile
import threading
import time
import unittest
from dataclasses import dataclass
from typing import Protocol

from hypothesis import assume, event, example, given, note, settings, target
from hypothesis import strategies as st


def passes(number: int) -> None:
    pass


def fails_above_a_thousand(number: int) -> None:
    assert number <= 1000, "too big"


def dies_when_smaller(number: int) -> None:
    if 300 < number < 2**14:
        os._exit(3)
    assert number <= 300, number


def crashes_in_two_places(number: int) -> None:
    if number >= 10**6:
        crash_for_the_large()
    if number > 1000:
        ctypes.string_at(0)


def crash_for_the_large() -> None:
    ctypes.string_at(0)


def prints_a_lot_and_fails(number: int) -> None:
    print("x" * 200_000)
    assert number <= 1000


def killed_above_a_thousand(number: int) -> None:
    if number > 1000:
        os.kill(os.getpid(), signal.SIGKILL)


@given(st.data())
def draws_and_exits(data: st.DataObject) -> None:
    if data.draw(st.integers()) > 1000:
        os._exit(3)


@given(st.data())
def draws_and_fails(data: st.DataObject) -> None:
    assert data.draw(st.integers()) <= 1000


def hangs_when_smaller(number: int) -> None:
    if 300 < number < 2**14:
        time.sleep(3600)
    assert number <= 300, number


def exits(number: int) -> None:
    if number % 50 == 7:
        os._exit(3)


def exits_above_a_thousand(number: int) -> None:
    if number > 1000:
        os._exit(3)


def segfaults_above_a_thousand(number: int) -> None:
    if number > 1000:
        ctypes.string_at(0)


def segfaults(number: int) -> None:
    if number % 50 == 7:
        ctypes.string_at(0)


def kills_itself(number: int) -> None:
    if number % 50 == 7:
        os.kill(os.getpid(), signal.SIGKILL)


def hangs(number: int) -> None:
    if number % 50 == 7:
        time.sleep(3600)


def hangs_always(number: int) -> None:
    time.sleep(3600)


def hangs_with_a_pid_file(text: str) -> None:
    with open(os.path.join(tempfile.gettempdir(), "pid"), "w") as file:
        file.write(str(os.getpid()))
    time.sleep(3600)


def exits_on_true(flag: bool) -> None:
    if flag:
        os._exit(1)


def two_values(flag: bool) -> None:
    pass


def calls_sys_exit(number: int) -> None:
    if number > 100:
        sys.exit(4)


def recurses(number: int) -> None:
    if number > 100:
        recurses(number + 1)


def takes_all_memory(number: int) -> None:
    if number > 100:
        bytearray(10**10)


def inspects_its_process(number: int) -> None:
    assert not [name for name in os.environ if name.startswith("FUZZFARM_") or "SECRET" in name]
    assert os.environ["HYPOTHESIS_OF_THE_HOST"] == "passed on"
    assert os.getpgid(0) == os.getpid()
    sockets = [fd for fd in os.listdir("/proc/self/fd") if _is_socket(fd)]
    assert len(sockets) == 1, sockets


def _is_socket(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except FileNotFoundError:
        return False


async def awaits(number: int) -> None:
    await asyncio.sleep(0)
    if number > 100:
        raise LookupError(number)


@dataclass
class Point:
    x: int
    y: int


def takes_a_dataclass(point: Point, /, *, label: str, scale: float = 1.0) -> None:
    assert scale == 1.0
    assert point.x < 100 or label == "", "far"


def no_hint(value) -> None:
    pass


def nothing_required(value: int = 3) -> None:
    pass


def untyped_pair(left, right) -> None:
    assert left != right


pairs = st.tuples(st.integers(0, 3), st.integers(0, 3))


def make_pairs() -> st.SearchStrategy:
    return pairs


def untyped_one(value) -> None:
    assert value < 900


numbers = st.integers(0, 1000)
not_a_strategy = 3
nothing = st.nothing()


@given(st.lists(st.integers()), st.data())
@settings(max_examples=5, deadline=1)
@example([], None).xfail()
@example([9, 9, 9, 9, 9, 9, 9, 9, 9], None)
def test_with_everything(values: list[int], data: st.DataObject) -> None:
    assume(len(values) != 2)
    event("ran")
    note("noted")
    target(float(len(values)))
    drawn = data.draw(st.integers(0, 10), label="drawn")
    assert len(values) + drawn < 8


@given(st.integers())
def test_with_fixture(tmp_path, number: int) -> None:
    pass


class TestMethods:
    def setup_method(self) -> None:
        self.limit = 1000

    @given(st.integers())
    def test_limit(self, number: int) -> None:
        assert number <= self.limit


class Cases(unittest.TestCase):
    def setUp(self) -> None:
        self.limit = 1000

    @given(st.integers())
    def test_limit(self, number: int) -> None:
        self.assertLessEqual(number, self.limit)  # noqa: PT009 - what a unittest user writes

    @given(st.integers())
    def test_skips(self, number: int) -> None:
        if number > 0:
            self.skipTest("positive")


def nested(depth: int) -> None:
    if depth <= 0:
        raise ValueError("at the bottom")
    nested(depth - 1)


def varied(number: int, values: list[int], text: str, members: frozenset[str]) -> None:
    pass


def fails_in_a_thread_free_way(number: int) -> None:
    thread = threading.Thread(target=passes, args=(number,))
    thread.start()
    thread.join()


def sometimes(number: int) -> None:
    marker = os.path.join(tempfile.gettempdir(), "flip")
    if os.path.exists(marker):
        os.unlink(marker)
        raise ValueError("this time")
    with open(marker, "w"):
        pass


@given(other=st.integers())
def test_with_wrong_name(number: int) -> None:
    pass


@given(st.nothing())
def test_of_nothing(number: int) -> None:
    pass


class Unmakeable(Protocol):
    def method(self) -> int: ...


def takes_a_protocol(value: Unmakeable) -> None:
    pass


def prints_and_fails(number: int) -> None:
    print(f"before {number}")
    assert number <= 1000


def prints_and_segfaults(number: int) -> None:
    print(f"the number is {number}", flush=True)
    if number % 50 == 7:
        print("to the other stream", file=sys.stderr, flush=True)
        ctypes.string_at(0)


def prints_much(number: int) -> None:
    os.write(1, b"x" * 200_000)


def keeps(value) -> None:
    assert (value if isinstance(value, bytes) else value.encode()).isascii(), "eight bits"


def has_no_dash(value) -> None:
    assert "-" not in value, "a dash"


SEEN: list[int] = []


def remembers(number: int) -> None:
    SEEN.append(number)
    assert len(SEEN) == 1, "another example was here"


async def awaits_apart(number: int) -> None:
    await asyncio.sleep(0)
    if number > 1000:
        raise LookupError("too big")


def is_a_tool(path, limit) -> None:
    assert isinstance(path, str)
    assert limit < 1000, "too much"
