"""Output of a running command, piece by piece, without loss: a slow reader slows the command down."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from fuzzfarm_worker.processes.capture import whole_characters

if TYPE_CHECKING:
    from fuzzfarm_worker.processes.command import CommandResult, StreamName
    from fuzzfarm_worker.processes.run import CommandRun

#: The command is held back while this much waits for the reader.
UNREAD_BYTES = 1024 * 1024
#: A line longer than this comes in pieces, so that output without line ends needs no unbounded memory.
MAX_LINE_BYTES = 64 * 1024

PieceKind = Literal["line", "chunk"]


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """A line with its line end, or a chunk as it came."""

    stream: StreamName
    data: bytes

    @property
    def text(self) -> str:
        """As UTF-8 with replacement; no character is cut between two pieces."""
        return self.data.decode("utf-8", "replace")


class Splitter:
    """Cuts one stream into pieces; what is not yet a whole piece is carried over."""

    def __init__(self, by: PieceKind) -> None:
        self._by = by
        self._rest = b""

    def feed(self, data: memoryview) -> list[bytes]:
        """The pieces that are whole now."""
        text = self._rest + data
        pieces = [text] if self._by == "chunk" else split_lines(text)
        last = pieces.pop() if pieces else b""
        if self._by == "chunk" or len(last) >= MAX_LINE_BYTES:
            cut = whole_characters(last)
        else:
            cut = len(last) if last.endswith(b"\n") else 0
        self._rest = last[cut:]
        return [*pieces, last[:cut]] if cut else pieces

    def end(self) -> list[bytes]:
        """The last piece, whole or not."""
        return [self._rest] if self._rest else []


def split_lines(text: bytes) -> list[bytes]:
    """Lines with their ends; unlike :meth:`bytes.splitlines` a carriage return ends none."""
    *lines, last = text.split(b"\n")
    return [line + b"\n" for line in lines] + ([last] if last else [])


class OutputStream:
    """An async iterator over the output of one command; afterwards its ``result``.

    Made by :meth:`ProcessManager.stream`. Pieces of stdout and stderr come in the order in which they were read.
    """

    def __init__(self, by: PieceKind) -> None:
        self._splitters: dict[StreamName, Splitter] = {"stdout": Splitter(by), "stderr": Splitter(by)}
        self._pieces: deque[OutputPiece] = deque()
        self._unread_bytes = 0
        self._ended = False
        self._news = asyncio.Event()
        self._run: CommandRun | None = None
        self._task: asyncio.Task[CommandResult] | None = None

    def follow(self, run: CommandRun, task: asyncio.Task[CommandResult]) -> None:
        """Iterate over ``run`` until ``task`` is done."""
        self._run = run
        self._task = task
        task.add_done_callback(lambda _: self._end())

    def put(self, name: StreamName, data: memoryview) -> None:
        """Take output as it comes."""
        self._add(name, self._splitters[name].feed(data))
        if self._unread_bytes > UNREAD_BYTES and self._run is not None:
            self._run.pause_output()

    def _add(self, name: StreamName, pieces: list[bytes]) -> None:
        for data in pieces:
            self._pieces.append(OutputPiece(name, data))
            self._unread_bytes += len(data)
        self._news.set()

    def _end(self) -> None:
        self._ended = True
        for name, splitter in self._splitters.items():
            self._add(name, splitter.end())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OutputPiece:
        assert self._run is not None and self._task is not None  # noqa: S101, PT018 - follow() came first
        while not self._pieces:
            if self._ended:
                self._task.result()  # raises what ended the command, if it was an error
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        piece = self._pieces.popleft()
        was_full = self._unread_bytes > UNREAD_BYTES
        self._unread_bytes -= len(piece.data)
        if was_full and self._unread_bytes <= UNREAD_BYTES:
            self._run.resume_output()
        return piece

    @property
    def result(self) -> CommandResult:
        """How the command ended; only once the iteration is over."""
        assert self._task is not None  # noqa: S101 - follow() came first
        return self._task.result()
