"""Hypothesis' own database of examples: what was found goes there, so that plain pytest runs it first."""

from __future__ import annotations

import os
from pathlib import Path

from fuzzfarm.cli.fuzz_process import FuzzProcessError, reproducers
from fuzzfarm.cli.harvest import Ending
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.views import count

HOME_VARIABLE = "HYPOTHESIS_STORAGE_DIRECTORY"
"""Where Hypothesis keeps what it keeps; without it, `.hypothesis` in the current directory."""


def database_place() -> Path:
    """Return the folder in which Hypothesis looks for examples when tests run from here."""
    return Path(os.environ.get(HOME_VARIABLE) or ".hypothesis") / "examples"


async def add_findings(ending: Ending, output: Output) -> None:
    """Add the examples of all findings of Hypothesis tests whose file is in the current directory."""
    saved = ending.findings
    if not saved:
        return
    try:
        made = await reproducers(saved, str(database_place()), Path.cwd())
    except FuzzProcessError as exc:
        output.complain(f"warning: nothing was added to Hypothesis' database of examples: {exc}")
        return
    added = sum(one["saved"] for one in made)
    if added:
        output.note(f"plain pytest runs {count(added, 'finding')} first: saved in {database_place()}")
