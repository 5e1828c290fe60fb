"""The jobs of exec: one for each input, keyed by it; inputs are words, lines of a file, or lines of standard input."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzzfarm.cli.command_template import CommandTemplate
from fuzzfarm.cli.failures import UsageError
from fuzzfarm.cli.printable import printable
from fuzzfarm.cli.standard_input import lines_of
from fuzzfarm.feed import Operations
from fuzzfarm_shared.operations import SubprocessJob

MOST_KEY_CHARS = 200
"""Longer inputs have a key of their beginning: people read it, and it is sent with every outcome."""

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Jobsheet:
    """Which jobs to run.

    Attributes:
        template: the command, and its inputs.
        arg_file: where more inputs are, "-" for standard input, or None.
        options: fields of `SubprocessJob` that hold for every job.
    """

    template: CommandTemplate
    arg_file: Path | None
    options: dict[str, Any]

    @property
    def reads_standard_input(self) -> bool:
        """Whether inputs are read from there: because that was said, or the command has a place and nothing for it."""
        if self.arg_file is not None:
            return str(self.arg_file) == STANDARD_INPUT
        return self.template.inputs is None and self.template.has_placeholder

    @property
    def is_single(self) -> bool:
        """Whether it is a single command without any input."""
        return self.template.inputs is None and self.arg_file is None and not self.reads_standard_input

    def operations(self, expect: Callable[[str], None]) -> Operations:
        """Return one job for each input, made when it is read; those of standard input as its lines come.

        Args:
            expect: is told the key of each job, in order.
        """
        return self._jobs_of_lines(expect) if self.reads_standard_input else self._jobs(expect)

    def _jobs(self, expect: Callable[[str], None]) -> Iterator[SubprocessJob]:
        keys = Keys()
        if self.is_single:
            yield self._job(keys.of(" ".join(self.template.words)), list(self.template.words), expect)
            return
        for given in self.template.inputs or ():
            yield self._job(keys.of(given), self.template.command(given), expect)
        for given in self._lines_of_file():
            yield self._job(keys.of(given), self.template.command(given), expect)

    async def _jobs_of_lines(self, expect: Callable[[str], None]) -> AsyncIterator[SubprocessJob]:
        keys = Keys()
        for given in self.template.inputs or ():
            yield self._job(keys.of(given), self.template.command(given), expect)
        if sys.stdin is None:
            raise UsageError("cannot read inputs from standard input, which is closed: write them after :::")
        try:
            async for given in lines_of(sys.stdin.fileno()):
                if given:
                    yield self._job(keys.of(given), self.template.command(given), expect)
        except OSError as exc:
            raise UsageError(f"cannot read inputs from standard input: {exc.strerror}") from exc

    def _job(self, key: str, command: list[str], expect: Callable[[str], None]) -> SubprocessJob:
        expect(key)
        return SubprocessJob(key=key, command=command, **self.options)

    def _lines_of_file(self) -> Iterator[str]:
        if self.arg_file is None:
            return
        try:
            with self.arg_file.open() as lines:
                yield from filter(None, (line.rstrip("\n") for line in lines))
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"cannot read inputs from {self.arg_file}: {exc}") from exc


class Keys:
    """Makes a key of each input: the input itself, and from its second time on with a number."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def of(self, given: str) -> str:
        """Return a key that no other input has.

        Raises:
            UsageError: for an input that is no text.
        """
        try:
            given.encode()
        except UnicodeEncodeError:
            text = printable(given.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
            raise UsageError(f"the input '{text}' is not in UTF-8, and cannot be sent: rename the file") from None
        name = given[:MOST_KEY_CHARS] or "''"
        key = name
        while key in self._seen:
            self._seen[name] += 1
            key = f"{name}#{self._seen[name]}"
        self._seen[key] += 1
        return key
