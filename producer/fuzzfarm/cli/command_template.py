"""Commands in the manner of GNU parallel: `strings -n 4 {} ::: FILE...` makes one command for each input."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from fuzzfarm.cli.failures import UsageError

SEPARATOR = ":::"

FOREIGN = ("::::", ":::+", "::::+")
"""Separators of GNU parallel that are not known here; taken for an argument, they would run something else."""

PLACEHOLDERS: dict[str, Callable[[str], str]] = {
    "{}": str,
    "{.}": lambda given: str(PurePath(given).with_suffix("")) if PurePath(given).suffix else given,
    "{/}": lambda given: PurePath(given).name,
    "{//}": lambda given: str(PurePath(given).parent),
    "{/.}": lambda given: PurePath(given).stem,
}
"""What stands for the input, and for parts of its path; the names are those of GNU parallel."""

_PLACEHOLDER = re.compile("|".join(map(re.escape, PLACEHOLDERS)))


@dataclass(frozen=True, slots=True)
class CommandTemplate:
    """A command with a place for its input.

    Attributes:
        words: program and arguments; those of `PLACEHOLDERS` stand for the input, which is appended without any.
        inputs: what follows `:::`, or None without it: then it is a single command.
    """

    words: tuple[str, ...]
    inputs: tuple[str, ...] | None

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> CommandTemplate:
        """Return the template that a command line holds.

        Raises:
            UsageError: when there is no command, no input where some should be, or another separator than one `:::`.
        """
        words = tuple(arguments)
        for word in FOREIGN:
            if word in words:
                raise UsageError(
                    f"{word} is not known: write inputs after :::, or use --arg-file FILE for those of a file"
                )
        inputs = None
        if SEPARATOR in words:
            at = words.index(SEPARATOR)
            words, inputs = words[:at], words[at + 1 :]
            if SEPARATOR in inputs:
                raise UsageError("there is a second :::, and inputs are not combined: write all of them after one :::")
            if not inputs:
                raise UsageError(
                    "there is no input after ::: (does the pattern match a file?): write some, or use --arg-file FILE"
                )
        if not words or not words[0]:
            raise UsageError("there is no command: write one after --, such as `fuzzfarm exec -- wc -l {} ::: *.txt`")
        return cls(words, inputs)

    @property
    def has_placeholder(self) -> bool:
        """Whether a word of the command stands for the input."""
        return any(_PLACEHOLDER.search(word) for word in self.words)

    def command(self, given: str) -> list[str]:
        """Return the command for one input."""
        if self.has_placeholder:
            return [_PLACEHOLDER.sub(lambda match: PLACEHOLDERS[match[0]](given), word) for word in self.words]
        return [*self.words, given]
