"""Failures as data: what an exception of an operation becomes in its outcome."""

from __future__ import annotations

import signal
import traceback

from fuzzfarm_shared.outcomes import ErrorKind, OperationError, clipped
from fuzzfarm_worker.executors.errors import OperationTimeoutError

MAX_MESSAGE_CHARS = 10_000
"""Enough for an assertion with a large diff; an endless message costs every reader."""

MAX_TRACEBACK_CHARS = 50_000
"""Enough for the deepest default recursion, collapsed."""


class OperationFailedError(Exception):
    """Raised by a handler to fail its operation with an error that is already data.

    Attributes:
        error: what is recorded.
        span: monotonic start and seconds of the try, where whoever waited for it knows them less well.
    """

    def __init__(self, error: OperationError, span: tuple[float, float] | None = None) -> None:
        self.error = error
        self.span = span
        super().__init__(str(error))


class PoisonError(BaseException):
    """Raised by a handler to fail its operation for good: it has killed a worker and a child.

    No Exception, because that would be tried again.

    Attributes:
        error: what is recorded.
        span: as in `OperationFailedError`.
    """

    def __init__(self, error: OperationError, span: tuple[float, float] | None = None) -> None:
        self.error = error
        self.span = span
        super().__init__(str(error))


def operation_error(exc: BaseException, attempt: int, worker: str) -> OperationError:
    """Return what is recorded for an operation that raised `exc`."""
    if isinstance(exc, OperationFailedError | PoisonError):
        given = exc.error
        return OperationError(
            given.kind, given.type, given.message, given.traceback, given.signal, attempt=attempt, worker=worker
        )
    return OperationError(
        # A TimeoutError of the target's own, of a socket for instance, is an exception as any other.
        kind=ErrorKind.TIMEOUT if isinstance(exc, OperationTimeoutError) else ErrorKind.EXCEPTION,
        type=f"{type(exc).__module__}.{type(exc).__qualname__}".removeprefix("builtins."),
        message=clipped(_message(exc), MAX_MESSAGE_CHARS),
        traceback=clipped(_traceback(exc), MAX_TRACEBACK_CHARS),
        attempt=attempt,
        worker=worker,
    )


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as broken:  # noqa: BLE001 - a target's own __str__ may raise anything
        return f"(its message cannot be shown: {type(broken).__name__})"


def _traceback(exc: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(exc))
    except Exception as broken:  # noqa: BLE001 - as above
        return f"(its traceback cannot be shown: {type(broken).__name__})"


def signal_name(number: int) -> str:
    """Return "SIGSEGV" and the like; real-time signals have only a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ending_name(returncode: int) -> str:
    """Return what people call the end of a process: "SIGSEGV", or "exit code 3"."""
    return signal_name(-returncode) if returncode < 0 else f"exit code {returncode}"
