"""Planted bugs for benchmarks/signatures.py: one target with all of them, which always fails.

Which failures are one bug, and which are two, is what a person says who has to repair them. Several are made so that
something that looks like an identity differs within one bug, or is shared by two.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import time
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

# One assertion, with other values each time, and another one with the same text further down.


def balance(amounts: list[int]) -> int:
    return sum(amounts) + 1


def check_books(amounts: list[int], closing: bool) -> None:
    result = balance(amounts)
    if closing:
        assert result == sum(amounts), f"{result} after {amounts}"
        return
    result -= 2
    assert result == sum(amounts), f"{result} after {amounts}"


# An error that is translated: two causes under one outer error are two bugs.


class ConfigError(Exception):
    """A configuration that cannot be used."""


def read_port(text: str) -> int:
    return int(text)


def read_host(text: str) -> str:
    return text.split("@")[1]


def load_config(port: str, host: str) -> tuple[int, str]:
    try:
        return read_port(port), read_host(host)
    except (ValueError, IndexError) as exc:
        raise ConfigError(f"cannot use {port!r} and {host!r}") from exc


# A parser that recurses without a limit; which functions take part depends on the input.

Tree = Any


def visit(node: Tree) -> int:
    if isinstance(node, list):
        return visit_list(node)
    if isinstance(node, dict):
        return visit_dict(node)
    return 1


def visit_list(node: list[Tree]) -> int:
    return sum(visit(child) for child in node)


def visit_dict(node: dict[str, Tree]) -> int:
    total = 0
    for child in node.values():
        total += visit(child)
    return total


def deep_tree(kinds: list[bool]) -> Tree:
    node: Tree = 1
    for place in range(2_000):
        node = [node] if kinds[place % len(kinds)] else {"child": node}
    return node


# Two hangs, found at any moment: in the loop itself, or in what it calls; both below one outer loop.


def looks_at(text: str, place: int) -> bool:
    return any(character == text[place] for character in text[:place])


def skip_blanks(text: str) -> int:
    place = 0
    while place < len(text):
        if looks_at(text, place):
            place += 0
        else:
            place -= place % 2
    return place


def count_down(number: int) -> int:
    steps = 0
    while number != 0:
        number -= 2
        steps += len(str(number))
    return steps


def scan(words: list[str]) -> int:
    total, place = 0, 0
    while place < len(words):
        word = words[place]
        total += count_down(len(word) * 2 + 1) if word.isdigit() else skip_blanks(word)
        place += 1
    return total


# A hang whose loop calls what takes time, and two at the end of one long way.


def replaced(text: str, old: str) -> str:
    kept = ""
    for character in text:
        kept += "" if character == old else character
    return kept


def without_spaces(text: str) -> str:
    while text is not None:
        text = replaced(text, " ") + "a"
        text = text[:200]
    return text


def halved(number: float) -> float:
    while number >= 0:
        number /= 2
    return number


def grown(number: float) -> float:
    while number > 0:
        number = min(number * 2, 10.0)
    return number


def far_away(number: int, levels: int, grows: bool) -> float:
    if levels:
        return far_away(number, levels - 1, grows)
    return grown(float(number)) if grows else halved(float(number))


def on_the_way(number: int, levels: int, grows: bool) -> float:
    return far_away(number, levels, grows)


# A recursion that takes for ever.


def paths(width: int, height: int) -> int:
    if width == 0 or height == 0:
        return 1
    return paths(width - 1, height) + paths(width, height - 1)


# A pattern that backtracks for ever: a hang in C.

NESTED = re.compile(r"(a+)+$")


def matches(text: str) -> bool:
    return NESTED.match(text) is not None


# Ends of the interpreter, at other depths.


def leave(depth: int) -> None:
    if depth:
        leave(depth - 1)
    os._exit(3)


def read_memory(address: int, depth: int) -> bytes:
    if depth:
        return read_memory(address, depth - 1)
    return ctypes.string_at(address)


def write_memory(address: int) -> None:
    ctypes.memset(address, 0, 8)


def native(address: int, depth: int, writes: bool) -> None:
    if writes:
        write_memory(address)
    else:
        read_memory(address, depth)


# Memory that runs out at any line of a loop.


def hoard(size: int) -> int:
    kept: list[Any] = []
    while True:
        kept.append(bytearray(size))
        kept.append(b"x" * size)
        kept.append([kept[-1]] * (size // 8))


# One line on which two things go wrong.


def look_up(table: dict[str, Any], key: Any, other: Any) -> Any:
    return table[key] + other.value


# One bug that is reached on three ways.


def parse_date(text: str) -> tuple[int, int, int]:
    day, month, year = text.split(".")
    return int(year), int(month), int(day)


def from_header(lines: list[str]) -> Any:
    return [parse_date(line) for line in lines]


def from_body(lines: list[str]) -> Any:
    def each(line: str) -> Any:
        return parse_date(line)

    return list(map(each, lines))


@dataclass
class Record:
    text: str

    @property
    def date(self) -> tuple[int, int, int]:
        return parse_date(self.text)


def dates(lines: list[str], way: int) -> Any:
    if way == 0:
        return from_header(lines)
    return from_body(lines) if way == 1 else [Record(line).date for line in lines]


# Two bugs that tell of themselves by one helper, and two that a class refuses.


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def reserve(seats: int) -> None:
    require(seats > 0, f"{seats} seats")


def refund(price: float) -> None:
    require(price >= 0, f"a price of {price}")


@dataclass
class Span:
    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.start > self.stop:
            raise ValueError(f"{self.start} is behind {self.stop}")


def first_half(length: int) -> Span:
    return Span(length, length // 2)


def reversed_span(length: int) -> Span:
    return Span(length, 0)


# A message that is never the same twice.


def handle(value: Any) -> None:
    raise TypeError(f"cannot handle {value!r} at {id(value):#x}, {time.time()}")


# A way round an error, which fails by itself: what was tried before is not the bug.


def quick(value: int) -> int:
    if value % 3 == 0:
        raise KeyError(value)
    if value % 3 == 1:
        raise LookupError("not there")
    return 1 // 0


def thorough(value: int) -> int:
    raise NotImplementedError(f"no way for {value}")


def either(value: int) -> int:
    try:
        return quick(value)
    except Exception:  # noqa: BLE001
        return thorough(value)


# Tasks of a group: one bug fails one task or several, another one fails others.


async def fetch(number: int) -> None:
    await asyncio.sleep(0)
    raise ConnectionError(f"no answer to {number}")


async def store(number: int) -> None:
    await asyncio.sleep(0)
    raise ConnectionError(f"no room for {number}")


async def gather(numbers: list[int], stores: bool) -> None:
    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(store(number) if stores else fetch(number))


# A failure at the bottom of a recursion that ends.


def nested(depth: int) -> None:
    if depth <= 0:
        raise EOFError(f"at {depth}")
    nested(depth - 1)


# Two lines of one function.


def two_lines(number: int) -> int:
    if number % 2:
        raise OSError("odd")
    raise OSError("even")


small = st.integers(1, 50)
words = st.text("abc", min_size=2, max_size=20)


@dataclass(frozen=True)
class Bug:
    """What is called, with what, and the type of the failure that it is."""

    call: Any
    inputs: st.SearchStrategy[Any]
    type: str


def deep(kinds: list[bool]) -> int:
    return visit(deep_tree(kinds))


def run_tasks(numbers: list[int], stores: bool) -> None:
    asyncio.run(gather(numbers, stores))


numbers = st.lists(small, min_size=1, max_size=4)
BUGS: dict[str, Bug] = {
    "assertion": Bug(check_books, st.tuples(numbers, st.just(True)), "AssertionError"),
    "same text below": Bug(check_books, st.tuples(numbers, st.just(False)), "AssertionError"),
    "chain, no number": Bug(load_config, st.tuples(words, st.just("a@b")), "signature_bugs.ConfigError"),
    "chain, no part": Bug(load_config, st.tuples(st.just("80"), words), "signature_bugs.ConfigError"),
    "recursion": Bug(deep, st.tuples(st.lists(st.booleans(), min_size=1, max_size=9)), "RecursionError"),
    "hang in a loop": Bug(scan, st.tuples(st.lists(words, min_size=1, max_size=3)), "hang"),
    "hang in another": Bug(scan, st.tuples(st.lists(small.map(str), min_size=1, max_size=3)), "hang"),
    "hang in calls": Bug(without_spaces, st.tuples(words), "hang"),
    "hang far away": Bug(on_the_way, st.tuples(small, st.integers(0, 3), st.just(False)), "hang"),
    "hang far away, too": Bug(on_the_way, st.tuples(small, st.integers(0, 3), st.just(True)), "hang"),
    "hang in a recursion": Bug(paths, st.tuples(st.integers(20, 40), st.integers(20, 40)), "hang"),
    "hang in C": Bug(matches, st.tuples(st.integers(35, 60).map(lambda size: "a" * size + "b")), "hang"),
    "exit": Bug(leave, st.tuples(st.integers(0, 5)), "exit code 3"),
    "segfault, read": Bug(native, st.tuples(st.integers(1, 99), st.integers(0, 5), st.just(False)), "SIGSEGV"),
    "segfault, write": Bug(native, st.tuples(st.integers(1, 99), st.integers(0, 5), st.just(True)), "SIGSEGV"),
    "memory": Bug(hoard, st.tuples(st.integers(1_000_000, 9_000_000)), "MemoryError"),
    "one line, no key": Bug(look_up, st.tuples(st.just({}), words, st.none()), "KeyError"),
    "one line, no hash": Bug(look_up, st.tuples(st.just({}), st.lists(small), st.none()), "TypeError"),
    "one line, no value": Bug(look_up, st.tuples(st.just({"a": 1}), st.just("a"), words | small), "AttributeError"),
    "three ways": Bug(dates, st.tuples(st.lists(words, min_size=1), st.integers(0, 2)), "ValueError"),
    "helper, seats": Bug(reserve, st.tuples(st.integers(-50, 0)), "ValueError"),
    "helper, price": Bug(refund, st.tuples(st.floats(-50, -1)), "ValueError"),
    "class, half": Bug(first_half, st.tuples(small), "ValueError"),
    "class, reversed": Bug(reversed_span, st.tuples(small), "ValueError"),
    "addresses": Bug(handle, st.tuples(st.builds(object)), "TypeError"),
    "way round": Bug(either, st.tuples(small), "NotImplementedError"),
    "tasks that fetch": Bug(run_tasks, st.tuples(numbers, st.just(False)), "ExceptionGroup"),
    "tasks that store": Bug(run_tasks, st.tuples(numbers, st.just(True)), "ExceptionGroup"),
    "at the bottom": Bug(nested, st.tuples(st.integers(0, 40)), "EOFError"),
    "odd": Bug(two_lines, st.tuples(small.map(lambda number: number * 2 + 1)), "OSError"),
    "even": Bug(two_lines, st.tuples(small.map(lambda number: number * 2)), "OSError"),
}
"""By name."""


def planted(name: str, arguments: tuple[Any, ...]) -> None:
    """Run into one of the bugs."""
    BUGS[name].call(*arguments)


cases = st.sampled_from(sorted(BUGS)).flatmap(lambda name: st.tuples(st.just(name), BUGS[name].inputs))
