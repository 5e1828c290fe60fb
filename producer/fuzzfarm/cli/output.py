"""Where a command writes: JSON or results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from fuzzfarm.cli.plain_data import to_json
from fuzzfarm.cli.printable import printable


class Output:
    """The two streams of one command.

    Args:
        as_json: write only JSON to standard output, and no progress anywhere.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._notes = Console(file=sys.stderr, highlight=False, soft_wrap=True)

    @property
    def live_console(self) -> Console | None:
        """The terminal that may show live progress.

        It is the one that results go to, if that is a terminal: two consoles would overwrite each other.
        """
        if self.as_json:
            return None
        return next((console for console in (self.console, self._notes) if console.is_terminal), None)

    def record(self, value: Any) -> None:
        """Write one line of JSON, if JSON was asked for."""
        if self.as_json:
            print(to_json(value), flush=True)

    def say(self, text: str = "", style: str = "") -> None:
        """Write a result for people, without control characters."""
        self.draw(Text(printable(text), style))

    def draw(self, drawing: RenderableType) -> None:
        """Write a drawing made of printable text, for people."""
        if not self.as_json:
            self.console.print(drawing)

    def note(self, text: str) -> None:
        """Write a remark for people to standard error."""
        if not self.as_json:
            console = self.console if self.console is self.live_console else self._notes
            console.print(Text(printable(text)))

    def complain(self, text: str) -> None:
        """Write an error or warning line to standard error, JSON or not."""
        self._notes.print(Text(printable(text)))

    def raw(self, data: bytes, *, error: bool = False) -> None:
        """Pass on a child's bytes: as they are into a file or pipe, as printable lines onto a terminal."""
        console, stream = (self._notes, sys.stderr) if error else (self.console, sys.stdout)
        if console.is_terminal:
            live = self.live_console or console
            if data:  # a last line without an end would be overwritten by live progress
                live.print(Text(printable(data.decode(errors="replace").removesuffix("\n"))))
        else:
            stream.flush()
            stream.buffer.write(data)
            stream.flush()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows of cells as aligned text; cells that start with a digit are aligned to the right."""
    lines = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    right = [len(lines) > 1 and all(line[column][:1].isdigit() for line in lines[1:]) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )
