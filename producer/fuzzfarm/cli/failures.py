"""What goes wrong, as one sentence for people and an exit code for scripts."""

from __future__ import annotations

import os
import traceback
from enum import IntEnum
from typing import Protocol, runtime_checkable

from fuzzfarm.cli.printable import printable
from fuzzfarm_shared.errors import (
    BatchConflictError,
    BatchNotFoundError,
    FarmUnreachableError,
    FuzzfarmError,
    InvalidOperationError,
    SettingsError,
)

DEBUG_VARIABLE = "FUZZFARM_DEBUG"


class ExitCode(IntEnum):
    """What every command returns to the shell."""

    CLEAN = 0
    FAILURES = 1
    """Something failed, or was found."""
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130
    """Ctrl-C, as shells have it: 128 + SIGINT."""
    BROKEN_PIPE = 141
    """Whoever read our output has gone, as `head` does: 128 + SIGPIPE."""


class UsageError(FuzzfarmError):
    """A command line that cannot be understood; the message says what to write instead."""


@runtime_checkable
class _ParserError(Protocol):
    """What typer raises for a bad command line; a protocol, because newer versions carry their own copy of click."""

    exit_code: int

    def format_message(self) -> str: ...


_USAGE = (UsageError, SettingsError, InvalidOperationError, BatchNotFoundError, BatchConflictError)


def explain(exc: BaseException) -> tuple[ExitCode, str]:
    """Return the exit code for `exc` and one sentence about it."""
    cause = root(exc)
    if isinstance(cause, _ParserError):
        message = cause.format_message().replace(": Value error, ", ": ")  # as some versions of typer say it
        return ExitCode.USAGE, f"{_sentence(message)}; see --help"
    if isinstance(cause, FarmUnreachableError):
        return ExitCode.UNREACHABLE, _sentence(str(cause))
    if isinstance(cause, _USAGE):
        return ExitCode.USAGE, _sentence(str(cause))
    if isinstance(cause, FuzzfarmError | TimeoutError):
        return ExitCode.FAILURES, _sentence(str(cause))
    return ExitCode.FAILURES, (
        f"unexpected {type(cause).__name__}: {_sentence(str(cause)) or 'no message'}; "
        f"set {DEBUG_VARIABLE}=1 to see where it comes from, and please report it"
    )


def root(exc: BaseException) -> BaseException:
    """Return the first error inside exception groups."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def debug_traceback(exc: BaseException) -> str | None:
    """Return the traceback of `exc` when `FUZZFARM_DEBUG` asks for it."""
    return "".join(traceback.format_exception(exc)) if os.environ.get(DEBUG_VARIABLE) else None


def _sentence(message: str) -> str:
    return printable(" ".join(message.split())).rstrip(".")
