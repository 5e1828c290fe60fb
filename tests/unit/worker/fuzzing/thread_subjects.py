"""Targets for the tests of fuzzing in threads; the tests share this module with them."""

import os
import threading
import time

RELEASE = threading.Event()
"""Set by a test when all that waits shall go on; a child waits for ever."""

RUNNING = threading.Event()
"""Set by a target that waits."""

MEETING = threading.Barrier(2)


def writes_down(number: int, parts: list[float], text: str, members: frozenset[bytes]) -> None:
    with open(os.environ["HYPOTHESIS_SEEN"], "a", encoding="utf-8") as file:
        print(number, parts, ascii(text), sorted(members), file=file)


def waits(number: int) -> None:
    RUNNING.set()
    RELEASE.wait()


def waits_sometimes(number: int) -> None:
    if number % 50 == 7:
        RELEASE.wait()


def waits_on_true(flag: bool) -> None:
    if flag:
        RELEASE.wait()


def computes(number: int) -> None:
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        pass


def meets_another(number: int) -> None:
    MEETING.wait(30)


def interrupts(number: int) -> None:
    if number > 100:
        raise KeyboardInterrupt


def chains(number: int) -> None:
    try:
        _checked(number)
    except ValueError as exc:
        raise LookupError("not there") from exc


def _checked(number: int) -> None:
    if number > 1000:
        raise ValueError(number)
