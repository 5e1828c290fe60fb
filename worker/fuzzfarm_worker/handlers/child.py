"""Running the child of an operation: what ends it from outside is an error of the operation, as data."""

from __future__ import annotations

from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_worker.failures import OperationFailedError
from fuzzfarm_worker.processes import CommandResult, CommandSpec, GuardianLostError, ProcessManager


async def run_child(processes: ProcessManager, spec: CommandSpec, what: str) -> CommandResult:
    """Return how the child ended that runs `what`; cancelling kills it.

    Raises:
        OperationFailedError: when it took too long and was killed, or when its guardian died.
    """
    try:
        result = await processes.run(spec)
    except GuardianLostError as exc:
        raise OperationFailedError(OperationError(ErrorKind.WORKER_LOST, "GuardianLostError", str(exc))) from exc
    if result.timed_out:
        message = f"{what} took longer than {spec.timeout_s} s and was killed"
        raise OperationFailedError(OperationError(ErrorKind.TIMEOUT, "TimeoutError", message))
    return result
