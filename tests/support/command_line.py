"""The command line as its users have it: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND_TIMEOUT_S = 55.0
SUPPORT = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs `fuzzfarm ...` in `folder`, with no other `FUZZFARM_*` variables than those given."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FUZZFARM_")}
        self.variables = {**clean, "PYTHONPATH": str(SUPPORT), **variables}

    def start(self, *words: str, **streams: int) -> subprocess.Popen[str]:
        """Start a command; its standard input is empty and its outputs are pipes, but for `streams`."""
        return self._start(["-m", "fuzzfarm", *words], **streams)

    def _start(self, words: Sequence[str], **streams: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.variables,
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        )

    def run(self, *words: str) -> Ended:
        """Run a command to its end."""
        return self.python("-m", "fuzzfarm", *words)

    def python(self, *words: str) -> Ended:
        """Run `python ...` to its end."""
        with self._start(words) as process:
            try:
                out, err = process.communicate(timeout=COMMAND_TIMEOUT_S)
            except BaseException:
                process.kill()
                raise
        return Ended(process.returncode, out, err)
