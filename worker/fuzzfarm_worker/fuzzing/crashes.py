"""Crashes of commands: what counts as one, and what tells two of them apart."""

from __future__ import annotations

import re
import signal
from collections.abc import Collection
from dataclasses import dataclass

from fuzzfarm_worker.fuzzing.sanitizers import SanitizerReport, sanitizer_report

ASSERTION = re.compile(
    r"^(?:\S+: )?(?P<file>[^\s:]+):(?P<line>\d+): (?:(?P<function>.+): )?Assertion `(?P<what>.+)' failed\.$",
    re.MULTILINE,
)
"""What assert(3) of glibc writes before it aborts."""


@dataclass(frozen=True, slots=True)
class Crash:
    """How a command failed.

    Attributes:
        kind: "killed" for a signal, else "exception": a kind of finding.
        type: "SIGSEGV", "AddressSanitizer: heap-buffer-overflow", "exit code 3".
        message: one line for people.
        location: "parse.c:12 in parse", where it is known, or "".
        signature: what makes two crashes one finding.
        report: of a sanitizer, or "".
    """

    kind: str
    type: str
    message: str
    location: str = ""
    signature: str = ""
    report: str = ""


class CommandCrashError(Exception):
    """A command crashed.

    Attributes:
        crash: how.
        input: what it was given.
    """

    def __init__(self, crash: Crash, given: bytes) -> None:
        self.crash = crash
        self.input = given
        super().__init__(crash.message)


def crash_of(returncode: int, printed: str, crash_exit_codes: Collection[int]) -> Crash | None:
    """Return how a command failed, or None when it did not.

    Args:
        returncode: its exit code, or minus the signal's number.
        printed: the end of what it printed.
        crash_exit_codes: exit codes that are failures.
    """
    if (report := sanitizer_report(printed)) is not None:
        return _reported(report)
    if returncode < 0:
        return _signalled(-returncode, printed)
    if returncode in crash_exit_codes:
        name = f"exit code {returncode}"
        return Crash("exception", name, f"the command ended with {name}", signature=name)
    return None


def _reported(report: SanitizerReport) -> Crash:
    signature = " < ".join([report.type, *report.path])
    return Crash("exception", report.type, report.headline, report.location, signature, report.text)


def _signalled(number: int, printed: str) -> Crash:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    message = f"the command was ended by {name}"
    failed = ASSERTION.search(printed) if number == signal.SIGABRT else None
    if failed is None:
        return Crash("killed", name, message, signature=name)
    file, function, what = failed["file"].rpartition("/")[2], failed["function"] or "", failed["what"]
    place = f"{file}:{failed['line']}"
    return Crash(
        kind="killed",
        type=name,
        message=f"{message}: assertion {what!r} failed",
        location=f"{place} in {function}" if function else place,
        signature=f"{name} < {file}:{function} < {what}",
    )
