"""Running the child of an operation: what ends it from outside is an error of the operation, as data."""

from __future__ import annotations

from collections.abc import Callable

from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_worker.failures import OperationFailedError
from fuzzfarm_worker.processes import CommandResult, CommandSpec, GuardianLostError, ProcessManager
from fuzzfarm_worker.processes.run import CommandRun


async def run_child(
    processes: ProcessManager, spec: CommandSpec, what: str, on_start: Callable[[CommandRun], None]
) -> CommandResult:
    """Return how the child ended that runs `what`; cancelling kills it. `on_start` gets its run.

    Raises:
        OperationFailedError: when it took too long and was killed, or when its guardian died.
    """
    try:
        result = await processes.run(spec, on_start=on_start)
    except GuardianLostError as exc:
        raise OperationFailedError(OperationError(ErrorKind.WORKER_LOST, "GuardianLostError", str(exc))) from exc
    if result.timed_out:
        message = f"{what} took longer than {spec.timeout_s} s and was killed"
        raise OperationFailedError(OperationError(ErrorKind.TIMEOUT, "TimeoutError", message))
    return result
