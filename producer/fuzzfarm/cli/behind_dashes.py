"""A command line whose words behind `--` are a command: the parser of options would not tell where it begins."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

DASHES = "--"
_WORDS = "fuzzfarm.behind_dashes"


class CommandBehindDashes(TyperCommand):
    """Keeps what stands behind the first `--` apart from its own arguments and options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what stands in front of it; typer does not publish the type of `ctx`."""
        if DASHES in args:
            place = args.index(DASHES)
            ctx.meta[_WORDS] = args[place + 1 :]
            args = args[:place]
        return super().parse_args(ctx, args)


def words_behind_dashes(context: typer.Context) -> list[str] | None:
    """Return the words behind `--`; None without it."""
    words: list[str] | None = context.meta.get(_WORDS)
    return words
