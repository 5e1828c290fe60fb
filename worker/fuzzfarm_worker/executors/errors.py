"""Errors that the executors raise or record themselves."""

from __future__ import annotations


class OperationTimeoutError(TimeoutError):
    """An operation did not end within its own timeout, counted from its start.

    Attributes:
        timeout_s: the limit that it exceeded, in seconds.
    """

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"the operation did not end within {timeout_s:g} s")
        self.timeout_s = timeout_s

    def __reduce__(self) -> tuple[type[OperationTimeoutError], tuple[float]]:
        return type(self), (self.timeout_s,)


class ThreadsExhaustedError(RuntimeError):
    """A sync operation was not started, because too many threads hang in operations that timed out.

    Attributes:
        hanging: how many threads were abandoned and have not returned.
    """

    def __init__(self, hanging: int) -> None:
        super().__init__(f"{hanging} threads hang in sync operations that timed out; no further one is started")
        self.hanging = hanging

    def __reduce__(self) -> tuple[type[ThreadsExhaustedError], tuple[int]]:
        return type(self), (self.hanging,)
