"""Calls of Python functions: in the worker, or each in an interpreter of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fuzzfarm_shared.errors import CodecError
from fuzzfarm_shared.operations import CallOperation
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_shared.targets import check_installed
from fuzzfarm_shared.values import pack, unpack
from fuzzfarm_worker.environment import interpreter_environment
from fuzzfarm_worker.failures import OperationFailedError
from fuzzfarm_worker.handlers.base import Handler, Tools
from fuzzfarm_worker.handlers.child import run_child, signal_name
from fuzzfarm_worker.processes import CommandSpec

CHILD_OUTPUT_BYTES = 64 * 1024 * 1024
"""Largest encoded result of a call in a child, and most of what it prints that is read."""

TAIL_CHARS = 2_000
"""How much of a dead child's error output its error shows."""


def call_handler(spec: CallOperation, tools: Tools) -> Handler:
    """Return the handler of calls; raises TargetError for a target that may not or cannot be called here."""
    if spec.isolation == "child":
        tools.allowed.check_target(spec.target)
        check_installed(spec.target)
        return Handler(_ChildCall(spec, tools), _as_two, None, spec.retries, spec.retry_delay_s)
    target = tools.allowed.load_target(spec.target)
    return Handler(target, _as_given, spec.timeout_s, spec.retries, spec.retry_delay_s)


def _as_given(args: Any, kwargs: Any) -> tuple[Sequence[Any], Mapping[str, Any] | None]:
    return args, kwargs


def _as_two(left: Any, right: Any) -> tuple[Sequence[Any], Mapping[str, Any] | None]:
    return (left, right), None


class _ChildCall:
    """Calls the target in a fresh interpreter, which may die without harm to the worker."""

    def __init__(self, spec: CallOperation, tools: Tools) -> None:
        self._spec = spec
        self._listed = tools.allowed.lists(spec.target)
        self._processes = tools.processes

    async def __call__(self, args: list[Any], kwargs: dict[str, Any] | None) -> Any:
        request = pack([self._spec.target, self._listed, args, kwargs or {}])
        spec = CommandSpec(
            command=[sys.executable, "-m", "fuzzfarm_worker.handlers.call_child"],
            env=interpreter_environment(),
            stdin=request,
            timeout_s=self._spec.timeout_s,
            max_output_bytes=CHILD_OUTPUT_BYTES,
            grace_s=0.0,
        )
        result = await run_child(self._processes, spec, "the call's child")
        if result.stdout_bytes > CHILD_OUTPUT_BYTES:
            raise OperationFailedError(_too_large(result.stdout_bytes))
        try:
            outcome = unpack(result.stdout)
        except CodecError as exc:
            raise OperationFailedError(_death(result.exit_code, result.signal, result.stderr)) from exc
        if isinstance(outcome, OperationError):
            raise OperationFailedError(outcome)
        return outcome[0]


def _too_large(size_bytes: int) -> OperationError:
    message = (
        f"the result takes {size_bytes:,} bytes and a child may return {CHILD_OUTPUT_BYTES:,}: "
        "write it to a file and return the path"
    )
    return OperationError(ErrorKind.INVALID_RESULT, "", message)


def _death(exit_code: int, signal_number: int | None, stderr: bytes) -> OperationError:
    tail = stderr.decode(errors="replace")[-TAIL_CHARS:]
    if signal_number is not None:
        name = signal_name(signal_number)
        return OperationError(ErrorKind.KILLED, name, f"the child was ended by {name}", tail or None, signal=name)
    return OperationError(ErrorKind.KILLED, "SystemExit", f"the child ended with exit code {exit_code}", tail or None)
