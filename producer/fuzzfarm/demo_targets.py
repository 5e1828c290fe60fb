"""Demo targets: small, realistic code with known bugs, to see what findings look like.

    fuzzfarm fuzz fuzzfarm.demo_targets

Each `fuzz_*` function is a plain typed callable: its inputs are made from its type hints. The bug of each is named in
its docstring. `fuzzfarm.demo_tests` holds the same kind of code as Hypothesis tests.
"""

# ruff: noqa: S101  # assertions are what these targets are for

from __future__ import annotations

import argparse
import asyncio
import ctypes
import datetime
from dataclasses import dataclass


def parse_ini(text: str) -> dict[str, str]:
    """Return the `name = value` pairs of a text; `#` starts a comment line."""
    pairs = {}
    for line in text.splitlines():
        stripped = line.strip()
        if not line or stripped[0] == "#":
            continue
        name, _, value = stripped.partition("=")
        pairs[name.strip()] = value.strip()
    return pairs


def dump_ini(pairs: dict[str, str]) -> str:
    """Return pairs as text for `parse_ini`."""
    return "\n".join(f"{name} = {value}" for name, value in pairs.items())


def fuzz_ini(text: str) -> None:
    """Unhandled exception: a line of blanks is not empty, but has no first character once stripped."""
    parse_ini(text)


def fuzz_ini_round_trip(pairs: dict[str, str]) -> None:
    """Wrong round trip: names and values with blanks, equal signs or line breaks come back changed."""
    assert parse_ini(dump_ini(pairs)) == pairs, "the pairs came back changed"


DAYS_BEFORE = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


def day_of_year(day: datetime.date) -> int:
    """Return the number of a day in its year, from 1."""
    leap_day = day.month > 2 and day.year % 4 == 0
    return DAYS_BEFORE[day.month - 1] + day.day + leap_day


def fuzz_day_of_year(day: datetime.date) -> None:
    """Wrong result: 1900 was no leap year, although 4 divides it."""
    assert day_of_year(day) == day.timetuple().tm_yday, "the day of the year is wrong"


def power(base: int, exponent: int) -> int:
    """Return `base ** exponent` modulo 1,000,003, by squaring."""
    if exponent == 0:
        return 1
    half = power(base, exponent // 2)
    return half * half * (base if exponent % 2 else 1) % 1_000_003


def fuzz_power(base: int, exponent: int) -> None:
    """Infinite recursion: -1 // 2 is -1, so a negative exponent never gets to 0."""
    power(base, exponent)


@dataclass(frozen=True)
class Ratio:
    """A part of a whole."""

    part: int
    whole: int

    def percent(self) -> int:
        """Return it in percent."""
        return self.part * 100 // self.whole


def average(ratios: list[Ratio]) -> float:
    """Return the average of ratios in percent, or 0 where one of them makes no sense."""
    try:
        return sum(ratio.percent() for ratio in ratios) / len(ratios)
    except ZeroDivisionError as exc:
        raise ValueError("a ratio of nothing") from exc


def fuzz_average(ratios: list[Ratio]) -> None:
    """Two bugs with one exception: an empty list, and a whole of 0."""
    average(ratios)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(prog="demo")
    parser.add_argument("files", nargs="+")
    parser.add_argument("-n", type=int, default=10)
    return parser.parse_args(arguments)


def fuzz_arguments(arguments: list[str]) -> None:
    """Ends the program: a bad command line exits instead of raising."""
    parse_arguments(arguments)


def strip_comments(text: str) -> str:
    """Return text without what stands between a `#` and the end of its line."""
    while "#" in text:
        start = text.index("#")
        end = text.find("\n", start)
        text = text[:start] + text[end:]
    return text


def fuzz_strip_comments(text: str) -> None:
    """Hangs: without a line break after it the end is -1, and a last character `#` stays there for ever."""
    strip_comments(text)


def checksum(data: bytes, length: int) -> int:
    """Return the sum of the first `length` bytes, at most 8, copied as C would copy them."""
    copied = (ctypes.c_ubyte * 8)()
    source = ctypes.create_string_buffer(data, 24) if len(data) <= 24 else 0
    ctypes.memmove(copied, source, min(abs(length), 8))
    return sum(copied)


def fuzz_checksum(data: bytes, length: int) -> None:
    """Segmentation fault: data that does not fit is left out, and its length is believed all the same."""
    checksum(data, length)


async def fetch(delays: list[float]) -> int:
    """Return how many replies came before one that was late."""
    for number, delay in enumerate(delays):
        await asyncio.sleep(0)
        if delay > 1.0:
            return number
    raise LookupError("no late reply")


async def fuzz_fetch(delays: list[float]) -> None:
    """Unhandled exception in an async function: nothing late, nothing returned."""
    await fetch(delays)
