"""Lines of a descriptor as they come."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from fuzzfarm.cli.standard_input import READ_BYTES, THREAD, lines_of

WAIT_S = 30.0


def collected(descriptor: int) -> list[str]:
    async def collect() -> list[str]:
        async with asyncio.timeout(WAIT_S):
            return [line async for line in lines_of(descriptor)]

    return asyncio.run(collect())


def assert_no_thread_reads() -> None:
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(WAIT_S)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\n\nb", ["a", "", "b"]),
        ("\N{SNOWMAN}\n".encode(), ["\N{SNOWMAN}"]),
        (b"\xff\n", ["\udcff"]),
        (b"x" * (3 * READ_BYTES) + b"\ny", ["x" * (3 * READ_BYTES), "y"]),
    ],
)
def test_lines_come_without_their_ends(tmp_path: Path, data: bytes, lines: list[str]) -> None:
    (tmp_path / "input").write_bytes(data)
    with (tmp_path / "input").open("rb") as file:
        assert collected(file.fileno()) == lines


def test_a_line_comes_before_the_next_one_is_written() -> None:
    async def converse(reader: int, writer: int) -> None:
        lines: Any = lines_of(reader)
        async with aclosing(lines), asyncio.timeout(WAIT_S):
            for line in ("one", "two"):
                os.write(writer, f"{line}\n".encode())
                assert await anext(lines) == line

    reader, writer = os.pipe()
    asyncio.run(converse(reader, writer))
    assert_no_thread_reads()
    os.close(writer)
    os.close(reader)


def test_whoever_leaves_does_not_wait_for_a_line() -> None:
    async def leave(reader: int) -> None:
        lines: AsyncIterator[str] = lines_of(reader)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(lines)

    reader, writer = os.pipe()
    asyncio.run(leave(reader))
    os.close(writer)  # ends the read that the thread waits in
    assert_no_thread_reads()
    os.close(reader)


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        collected(folder)
    os.close(folder)
