"""One command to run to its end, and what became of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fuzzfarm_worker.processes.capture import decode_text
from fuzzfarm_worker.processes.errors import ProcessStartError
from fuzzfarm_worker.processes.limits import NO_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: Enough for the text output of any analysis tool we know, small enough to keep 100 of them in memory.
DEFAULT_MAX_OUTPUT_BYTES = 10_000_000
#: Long enough to write a core file or close a database, short enough that 20 stubborn trees end in under 1.5 s.
DEFAULT_GRACE_S = 1.0

StreamName = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """A command line with everything that bounds it. Nothing here passes through a shell."""

    command: Sequence[str]
    """Program and arguments; a program without a slash is looked up in the PATH of ``env``."""
    cwd: str | os.PathLike[str] | None = None
    """Working directory; None is the worker's own."""
    root: str | None = None
    """Folder, without links in its name, out of which no link may lead ``cwd``: it is opened below it at the start, and
    a name on the way that is a link is refused. None: ``cwd`` is looked up by its name."""
    env: Mapping[str, str] | None = None
    """The exact environment; None hands down the worker's own."""
    stdin: bytes | Path | int | None = None
    """What the program reads: bytes, a file, or nothing at all. A descriptor becomes its standard input as it is, a
    socket too; it must stay open until the program has started, and the caller closes it."""
    timeout_s: float | None = None
    """Wall-clock limit; past it the tree is stopped and the result says ``timed_out``."""
    max_output_bytes: int = DEFAULT_MAX_OUTPUT_BYTES
    """How much of stdout and of stderr is kept (each); the rest is read and counted."""
    keep_tail_bytes: int = 0
    """How much of ``max_output_bytes`` holds the end of the output; the rest holds its beginning."""
    stop_at_cap: bool = False
    """Kill the tree as soon as either output passes ``max_output_bytes``."""
    spill_stdout: Path | None = None
    """File that receives all of stdout, beyond the cap too; when it cannot be written, the tree is killed."""
    limits: Limits = NO_LIMITS
    """What the operating system enforces."""
    grace_s: float = DEFAULT_GRACE_S
    """Time between SIGTERM and SIGKILL at a timeout; 0 kills at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """The end of a command. A non-zero exit code is a result, not an error."""

    exit_code: int
    """As in :mod:`subprocess`: negative is the signal that ended it."""
    signal: int | None
    """Number of the signal that ended it."""
    stdout: bytes
    stderr: bytes
    stdout_bytes: int
    """Bytes of stdout seen, kept or not."""
    stderr_bytes: int
    """Bytes of stderr seen, kept or not."""
    stdout_head_bytes: int
    """How many bytes of what was kept of stdout are its beginning; the others are its end."""
    stderr_head_bytes: int
    """The same of stderr."""
    truncated: bool
    """Some output was seen and not kept."""
    duration_s: float
    """From the start to the end of the whole tree."""
    peak_memory_bytes: int | None
    """Largest resident size of a process of the tree; None where the system does not tell."""
    cpu_time_s: float | None
    """User and system time of the program and the children it waited for; None where the system does not tell."""
    timed_out: bool

    @property
    def stdout_text(self) -> str:
        """What was kept of stdout, as UTF-8 with replacement; a character that was cut in half is left out."""
        cut = self.stdout_bytes > len(self.stdout)
        return decode_text(self.stdout, cut_at=self.stdout_head_bytes if cut else None)

    @property
    def stderr_text(self) -> str:
        """The same of stderr."""
        cut = self.stderr_bytes > len(self.stderr)
        return decode_text(self.stderr, cut_at=self.stderr_head_bytes if cut else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandProgress:
    """How far a command is that runs."""

    running_s: float
    """Since its start."""
    stdout_bytes: int
    """Bytes of stdout seen so far, kept or not."""
    stderr_bytes: int
    """Bytes of stderr seen so far, kept or not."""
    stdout_tail: bytes
    """The newest of stdout."""
    stderr_tail: bytes
    """The newest of stderr."""
    memory_bytes: int | None
    """Resident size of the program itself, without its children; None where the system does not tell."""
    cpu_time_s: float | None
    """User and system time of the program and the children it has waited for; None where the system does not tell."""


def checked_command(command: Sequence[str]) -> tuple[str, ...]:
    """The command as a tuple of strings.

    Raises:
        ProcessStartError: It is empty, a bare string, or holds what no operating system can pass on.
    """
    if isinstance(command, str | bytes) or not command:
        raise ProcessStartError([str(command)] if command else [], "a command is a non-empty list of strings")
    try:
        parts = tuple(os.fspath(part) for part in command)
    except TypeError as error:
        raise ProcessStartError([str(part) for part in command], "arguments must be strings without NUL") from error
    if not all(isinstance(part, str) and "\0" not in part for part in parts):
        raise ProcessStartError([str(part) for part in parts], "arguments must be strings without NUL")
    return parts


def checked_cwd(command: Sequence[str], cwd: str | os.PathLike[str] | None) -> str:
    """The working directory to start in.

    Raises:
        ProcessStartError: It holds what no operating system can pass on, or this process has none to hand down.
    """
    try:
        path = os.getcwd() if cwd is None else os.fspath(cwd)
    except FileNotFoundError as error:
        raise ProcessStartError(command, "the working directory of this process is gone") from error
    if b"\0" in os.fsencode(path):
        raise ProcessStartError(command, f"working directory {path!r} must be a string without NUL")
    return path


def checked_env(command: Sequence[str], env: Mapping[str, str] | None) -> Mapping[str, str]:
    """The environment to start with.

    Raises:
        ProcessStartError: A name or value that no operating system can pass on.
    """
    if env is None:
        return os.environ
    for name, value in env.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise ProcessStartError(command, f"environment {name!r} must be strings")
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ProcessStartError(command, f"environment {name!r} has an empty name, an equals sign in it, or NUL")
    return env
