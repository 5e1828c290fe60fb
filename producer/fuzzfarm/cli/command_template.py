"""Commands in the manner of GNU parallel: `strings -n 4 {} ::: FILE...` makes one command for each input."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from fuzzfarm.cli.failures import UsageError

SEPARATOR = ":::"

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
            UsageError: when there is no command, or no input where some should be.
        """
        words = tuple(arguments)
        inputs = None
        if SEPARATOR in words:
            at = words.index(SEPARATOR)
            words, inputs = words[:at], tuple(word for word in words[at + 1 :] if word != SEPARATOR)
            if not inputs:
                raise UsageError(
                    "there is no input after ::: (does the pattern match a file?): write some, or use --arg-file FILE"
                )
        if not words:
            raise UsageError("there is no command: write one after --, such as `fuzzfarm exec -- wc -l {} ::: *.txt`")
        return cls(words, inputs)

    def command(self, given: str) -> list[str]:
        """Return the command for one input."""
        if any(_PLACEHOLDER.search(word) for word in self.words):
            return [_PLACEHOLDER.sub(lambda match: PLACEHOLDERS[match[0]](given), word) for word in self.words]
        return [*self.words, given]


def keyed(inputs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each input with a key of its own: the input, and from its second time on with a number."""
    seen: Counter[str] = Counter()
    for given in inputs:
        seen[given] += 1
        yield (given if seen[given] == 1 else f"{given}#{seen[given]}"), given
