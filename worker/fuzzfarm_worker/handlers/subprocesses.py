"""Subprocess jobs: programs that are allowed here, in a clean environment, with bounded output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.operations import SubprocessJob
from fuzzfarm_shared.outcomes import ErrorKind, OperationError, SubprocessResult, clipped
from fuzzfarm_worker.environment import child_environment
from fuzzfarm_worker.failures import OperationFailedError, signal_name
from fuzzfarm_worker.handlers.base import Handler, RefusedError, Tools
from fuzzfarm_worker.handlers.child import run_child
from fuzzfarm_worker.processes import CommandResult, CommandSpec, Limits
from fuzzfarm_worker.processes.run import CommandRun

ERROR_TAIL_CHARS = 2_000
"""How much of the error output the error of a failed job shows."""


def subprocess_handler(spec: SubprocessJob, tools: Tools) -> Handler:
    """Return the handler of jobs with these options; raises TargetError for what they may not have."""
    if spec.cwd is not None:
        tools.allowed.folder(spec.cwd)
    for name in spec.env:
        tools.allowed.check_variable(name)

    def arguments(command: list[str], stdin: Any) -> tuple[Sequence[Any], Mapping[str, Any] | None]:
        return ([tools.allowed.program(command[0]), *command[1:]], stdin), None

    return Handler(_Job(spec, tools), arguments, None, spec.retries, spec.retry_delay_s, tells=True)


class _Job:
    """Runs one command after another with the same options."""

    def __init__(self, spec: SubprocessJob, tools: Tools) -> None:
        self._spec = spec
        self._allowed = tools.allowed
        self._processes = tools.processes
        self._env = child_environment(spec.env)
        self._limits = Limits(**spec.limits.model_dump())

    async def __call__(
        self, note: Callable[[CommandRun], None], command: list[str], stdin: bytes | None
    ) -> SubprocessResult:
        cwd, root = self._place()
        spec = CommandSpec(
            command=command,
            cwd=cwd,
            root=root,
            env=self._env,
            stdin=stdin,
            timeout_s=self._spec.timeout_s,
            max_output_bytes=self._spec.max_output_bytes,
            limits=self._limits,
        )
        result = await run_child(self._processes, spec, command[0], note)
        if self._spec.check and result.exit_code != 0:
            raise OperationFailedError(_failure(command, result))
        return self._as_result(result)

    def _place(self) -> tuple[str | None, str | None]:
        """Return the working directory and its root; asked of each job, since those before it may have moved links."""
        if self._spec.cwd is None:
            return None, None
        try:
            cwd = self._allowed.folder(self._spec.cwd)
        except TargetError as exc:
            raise RefusedError(exc) from exc
        return cwd, self._allowed.root_of(cwd)

    def _as_result(self, result: CommandResult) -> SubprocessResult:
        return SubprocessResult(
            exit_code=result.exit_code,
            stdout=result.stdout if self._spec.binary else result.stdout_text,
            stderr=result.stderr if self._spec.binary else result.stderr_text,
            stdout_bytes=result.stdout_bytes,
            stderr_bytes=result.stderr_bytes,
            truncated=result.truncated,
            duration_s=result.duration_s,
            signal=None if result.signal is None else signal_name(result.signal),
            peak_memory_bytes=result.peak_memory_bytes,
            cpu_time_s=result.cpu_time_s,
        )


def _failure(command: list[str], result: CommandResult) -> OperationError:
    stderr = clipped(result.stderr_text, ERROR_TAIL_CHARS)
    if result.signal is not None:
        name = signal_name(result.signal)
        return OperationError(ErrorKind.KILLED, name, f"{command[0]} was ended by {name}", stderr, signal=name)
    return OperationError(
        ErrorKind.EXCEPTION, "CalledProcessError", f"{command[0]} ended with exit code {result.exit_code}", stderr
    )
