"""A pipe is read when that is worth waking up for, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import os

import pytest

from fuzzfarm_worker.processes.pipes import REST_S, FastPipes, PipeDrain


class Pieces:
    """A sink that keeps every piece."""

    counts_only = False

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended = False

    def feed(self, data: memoryview) -> None:
        self.pieces.append(bytes(data))

    def skip(self, count: int) -> None:
        raise AssertionError("nothing is to be thrown away")

    def close(self) -> None:
        self.ended = True


async def opened(pipes: FastPipes) -> tuple[PipeDrain, int, Pieces]:
    sink = Pieces()
    drain, writer = await pipes.open_output(sink)
    drain.begin()
    return drain, writer, sink


def test_many_small_writes_are_read_in_few_pieces() -> None:
    async def main() -> None:
        pipes = FastPipes()
        drain, writer, sink = await opened(pipes)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(2 * REST_S)  # so that the first piece counts as slow
        began = loop.time()
        for number in range(200):
            os.write(writer, b"%03d" % number)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        elapsed_s = loop.time() - began
        pieces_beyond_rests = len(sink.pieces) - elapsed_s / REST_S
        drain.finish()
        assert b"".join(sink.pieces) == b"".join(b"%03d" % number for number in range(200))
        assert pieces_beyond_rests < 20
        assert sink.ended
        os.close(writer)
        pipes.close()

    asyncio.run(main())


@pytest.mark.parametrize("ending", ["close", "finish", "pause"])
def test_a_drain_ends_while_it_rests(ending: str) -> None:
    async def main() -> None:
        pipes = FastPipes()
        drain, writer, sink = await opened(pipes)
        await asyncio.sleep(2 * REST_S)  # so that the next piece counts as slow
        os.write(writer, b"first")
        while not sink.pieces:
            await asyncio.sleep(0)
        os.write(writer, b"second")
        getattr(drain, ending)()
        if ending == "pause":
            await asyncio.sleep(3 * REST_S)
            assert sink.pieces == [b"first"]
            drain.resume()
            while len(sink.pieces) < 2:
                await asyncio.sleep(0)
            drain.close()
        assert sink.pieces == ([b"first"] if ending == "close" else [b"first", b"second"])
        assert sink.ended
        os.close(writer)
        pipes.close()

    asyncio.run(main())
