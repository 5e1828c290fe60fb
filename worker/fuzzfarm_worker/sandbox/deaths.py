"""Deaths: the error of a call whose child did not come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzzfarm_shared.outcomes import ErrorKind, OperationError, clipped
from fuzzfarm_worker.failures import OperationFailedError, ending_name, signal_name

if TYPE_CHECKING:
    from fuzzfarm_worker.sandbox.caller import Call, Caller

TAIL_CHARS = 2_000
"""How much of a dead child's output its error shows."""


def death_of(caller: Caller, call: Call) -> OperationFailedError:
    """Return the error of `call`, with which the child of `caller` ended."""
    return OperationFailedError(_error(caller, call), caller.span())


def _error(caller: Caller, call: Call) -> OperationError:
    printed = clipped(caller.child.printed(), TAIL_CHARS) or None
    if caller.expired:
        message = f"the call's child took longer than {call.timeout_s} s and was killed"
        return OperationError(ErrorKind.TIMEOUT, "TimeoutError", message, printed)
    end = caller.child.exited.result()
    if end.guardian_lost:
        return _lost(str(end.zygote))
    how = ending_name(end.returncode)
    if end.zygote is not None:
        message = f"the child was killed with its zygote, which ended by itself ({end.zygote})"
    elif caller.broken:
        message = "the child wrote to its worker's socket and was killed: leave the descriptors of others alone"
    else:
        message = f"the child was ended by {how}" if end.returncode < 0 else f"the child ended with {how}"
    return _killed(end.returncode, message, printed)


def never_began(last: str, printed: str) -> OperationFailedError:
    """Return the error of a call that no child begins, because each ends before.

    Args:
        last: how the last one ended.
        printed: the end of what it printed.
    """
    return OperationFailedError(
        _killed(
            1, f"children end before they begin this call; the last one: {last}", clipped(printed, TAIL_CHARS) or None
        ),
    )


def lost_with_worker(reason: str) -> OperationFailedError:
    """Return the error of a call whose zygote cannot be started or kept, for a reason that is the worker's."""
    return OperationFailedError(_lost(reason))


def _lost(reason: str) -> OperationError:
    return OperationError(ErrorKind.WORKER_LOST, "GuardianLostError", reason)


def _killed(returncode: int, message: str, printed: str | None) -> OperationError:
    if returncode < 0:
        name = signal_name(-returncode)
        return OperationError(ErrorKind.KILLED, name, message, printed, signal=name)
    return OperationError(ErrorKind.KILLED, "SystemExit", message, printed)
