"""Output while it comes."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from children import SLEEPS, all_end, python, watched
from hypothesis import given
from hypothesis import strategies as st

from fuzzfarm_worker.processes import CommandSpec, ProcessManager, ProcessStartError, stream_subprocess
from fuzzfarm_worker.processes.stream import MAX_LINE_BYTES, Splitter


async def pieces_of(command: list[str], **options) -> list[bytes]:
    async with stream_subprocess(command, **options) as stream:
        return [piece.data async for piece in stream]


def test_lines_come_while_the_command_runs():
    async def main() -> None:
        async with stream_subprocess(["sh", "-c", "echo first; read never < /dev/zero; sleep 1000"]) as stream:
            piece = await anext(stream)
            assert (piece.stream, piece.text) == ("stdout", "first\n")

    asyncio.run(main())


def test_all_lines_come_whole_and_then_the_result():
    async def main() -> None:
        async with stream_subprocess(["sh", "-c", "seq 20000; echo oops >&2; printf end; exit 3"]) as stream:
            pieces = [piece async for piece in stream]
        out = [piece.text for piece in pieces if piece.stream == "stdout"]
        assert out == [f"{number}\n" for number in range(1, 20_001)] + ["end"]
        assert [piece.data for piece in pieces if piece.stream == "stderr"] == [b"oops\n"]
        assert stream.result.exit_code == 3

    asyncio.run(main())


def test_chunks_lose_nothing():
    command = ["sh", "-c", "seq 300000 | tr -d '\\n'"]
    expected = "".join(str(number) for number in range(1, 300_001)).encode()
    assert b"".join(asyncio.run(pieces_of(command, by="chunk"))) == expected


def test_a_slow_reader_holds_the_command_back_and_loses_nothing():
    async def main() -> None:
        total = 30_000_000
        async with ProcessManager() as manager:
            spec = CommandSpec(command=["head", "-c", str(total), "/dev/zero"], max_output_bytes=0)
            async with manager.stream(spec, by="chunk") as stream:
                seen = len((await anext(stream)).data)
                [process] = await manager.list_processes()
                await asyncio.sleep(0.2)  # time in which a command that is not held back would have ended
                assert (await manager.get_process_status(process["pid"]))["status"] == "running"
                async for piece in stream:
                    seen += len(piece.data)
                assert seen == total
                assert stream.result.stdout_bytes == total

    asyncio.run(main())


def test_leaving_early_kills_the_command():
    async def main() -> None:
        async with ProcessManager() as manager:
            spec = CommandSpec(command=["sh", "-c", "echo $$; exec sleep 1000"])
            async with manager.stream(spec) as stream:
                pid = int((await anext(stream)).text)
            with watched([pid]) as alive:
                assert all_end(alive, within_s=1)
            assert await manager.list_processes() == []

    asyncio.run(main())


def test_a_timeout_ends_the_iteration():
    async def main() -> None:
        async with stream_subprocess(SLEEPS, timeout=0.1) as stream:
            assert [piece async for piece in stream] == []
        assert (stream.result.timed_out, stream.result.signal) == (True, signal.SIGKILL)

    asyncio.run(main())


def test_what_cannot_start_is_raised_on_entry():
    with pytest.raises(ProcessStartError):
        asyncio.run(pieces_of(["/no/such/program"]))


def test_characters_are_not_cut_between_pieces():
    text = "aé€😀" * 100_000
    command = python(f"import sys; sys.stdout.buffer.write(('aé€😀' * 100_000).encode())")  # noqa: F541
    pieces = asyncio.run(pieces_of(command, by="chunk"))
    assert "".join(piece.decode() for piece in pieces) == text


@given(st.lists(st.binary(max_size=30)), st.sampled_from(["line", "chunk"]))
def test_a_splitter_loses_nothing(pieces, by):
    splitter = Splitter(by)
    out = [piece for data in pieces for piece in splitter.feed(memoryview(data))] + splitter.end()
    assert b"".join(out) == b"".join(pieces)
    if by == "line":
        assert all(piece.endswith(b"\n") and piece.count(b"\n") == 1 for piece in out[:-1])


def test_a_line_without_end_is_bounded():
    splitter = Splitter("line")
    out = [piece for _ in range(100) for piece in splitter.feed(memoryview(os.urandom(0) + b"x" * 10_000))]
    assert all(len(piece) <= MAX_LINE_BYTES + 10_000 for piece in out)
    assert len(b"".join(out)) > 900_000
