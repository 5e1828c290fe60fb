"""Errors of the process layer; every one keeps the values that explain it.

ProcessError
|-- ProcessStartError   the program never ran
|-- UnkillableError     SIGKILL did not end it in time
`-- GuardianLostError   the helper that owns the children died
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ProcessError(Exception):
    """Base of all errors raised by :mod:`fuzzfarm_worker.processes`."""


class ProcessStartError(ProcessError):
    """The program could not be started; the operating system's reason is ``__cause__`` where there is one."""

    def __init__(self, command: Sequence[str], reason: str) -> None:
        super().__init__(f"cannot start {command[0] if command else '(empty command)'!r}: {reason}")
        self.command = tuple(command)
        self.reason = reason


class UnkillableError(ProcessError):
    """A process did not end within seconds of SIGKILL: it sleeps uninterruptibly, or belongs to another user."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} is still there after SIGKILL")
        self.pid = pid


class GuardianLostError(ProcessError):
    """The guardian ended while it owned children; they were killed and their exit codes are unknown."""
