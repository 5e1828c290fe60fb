"""Commands as targets: run on each example by the child, which turns their crashes into exceptions.

A command is in the process group of its child, so it dies with it: a hang is seen, and ended, as that of any example.
What it prints goes where the child prints.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fuzzfarm_worker.environment import child_environment
from fuzzfarm_worker.fuzzing.cpu import CpuLimit
from fuzzfarm_worker.fuzzing.crashes import CommandCrashError, crash_of
from fuzzfarm_worker.fuzzing.words import Program

INPUT_FILE = "@@"
"""Stands for the path of the file with the example, anywhere in an argument."""

PREFIX = "fuzzfarm-input-"

STDOUT = 1
"""Where the command prints, too: a file of which the worker keeps the end."""

MAX_REPORT_BYTES = 262_144
"""The end of what was printed in which a report is looked for: the longest ones, of deep recursion, take a fifth."""

LEFTOVER_S = 60.0
"""A file this old whose writer is gone is deleted; one that was just made is not locked yet."""

SANITIZER_OPTIONS = {"UBSAN_OPTIONS": "print_stacktrace=1"}
"""Without stacks, two errors of undefined behaviour in one file are told apart by their lines only."""


class Command:
    """Runs a program on inputs.

    Args:
        program: the command and what its failures are.

    Attributes:
        cpu_limit: what it is held to each time; None: what this process is held to.
    """

    def __init__(self, program: Program) -> None:
        self.cpu_limit: CpuLimit | None = None
        self._program = program
        self._takes_file = any(INPUT_FILE in word for word in program.command[1:])
        self._environment = {**child_environment(), **SANITIZER_OPTIONS}
        self._swept = False

    def run(self, value: Any) -> None:
        """Run the command on one input to its end.

        Raises:
            CommandCrashError: when it crashes.
            OSError: when it cannot be started.
        """
        given = as_bytes(value)
        start = os.fstat(STDOUT).st_size
        returncode = self._with_file(given) if self._takes_file else self._with_stdin(given)
        crash = crash_of(returncode, _printed_since(start), self._program.crash_exit_codes)
        if crash is not None:
            raise CommandCrashError(crash, given)

    def _with_file(self, given: bytes) -> int:
        self._sweep()
        with _input_file(given) as path:
            command = [word.replace(INPUT_FILE, path) for word in self._program.command]
            return self._end_of([self._program.command[0], *command[1:]], subprocess.DEVNULL)

    def _with_stdin(self, given: bytes) -> int:
        with tempfile.TemporaryFile() as file:
            file.write(given)
            file.seek(0)
            return self._end_of(self._program.command, file)

    def _end_of(self, command: Any, stdin: int | IO[bytes]) -> int:
        # It forks this process in place of vfork(2), and runs Python between fork and exec: a child has but one thread.
        before = None if self.cpu_limit is None else self.cpu_limit.keep
        with subprocess.Popen(command, stdin=stdin, env=self._environment, preexec_fn=before) as process:  # noqa: PLW1509
            return process.wait()

    def _sweep(self) -> None:
        """Delete, once, what children left that were killed while their command ran."""
        if not self._swept:
            self._swept = True
            for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
                with suppress(OSError):
                    _delete_leftover(path)


def as_bytes(value: Any) -> bytes:
    """Return what a command gets: bytes as they are, text in UTF-8, anything else as JSON.

    Raises:
        TypeError: for what JSON lacks.
    """
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


@contextmanager
def _input_file(given: bytes) -> Iterator[str]:
    """Write a file that lasts while the context is open; its lock says that somebody needs it."""
    descriptor, path = tempfile.mkstemp(prefix=PREFIX)
    with open(descriptor, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(given)
            file.flush()
            yield path
        finally:
            with suppress(FileNotFoundError):  # the command may have deleted or renamed it
                os.unlink(path)


def _delete_leftover(path: Path) -> None:
    if time.time() - path.stat().st_mtime < LEFTOVER_S:
        return
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def _printed_since(start: int) -> str:
    size = os.fstat(STDOUT).st_size
    start = max(start if start <= size else 0, size - MAX_REPORT_BYTES)  # the worker may have cut it
    return os.pread(STDOUT, size - start, start).decode("utf-8", "replace")
