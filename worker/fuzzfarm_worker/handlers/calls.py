"""Calls of Python functions: in the worker, or in children that may die without harm to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.operations import CallOperation
from fuzzfarm_shared.targets import check_installed
from fuzzfarm_worker.handlers.base import Handler, RefusedError, Tools
from fuzzfarm_worker.sandbox import Timed


def call_handler(spec: CallOperation, tools: Tools) -> Handler:
    """Return the handler of calls; raises TargetError for a target that may not or cannot be called here."""
    if spec.isolation == "child":
        tools.allowed.check_target(spec.target)
        check_installed(spec.target)
        # Its time limit is the sandbox's: it counts from the start in the child, and kills.
        return Handler(_ChildCall(spec, tools), _as_two, None, spec.retries, spec.retry_delay_s)
    target = tools.allowed.load_target(spec.target)
    return Handler(target, _as_given, spec.timeout_s, spec.retries, spec.retry_delay_s)


def _as_given(args: Any, kwargs: Any) -> tuple[Sequence[Any], Mapping[str, Any] | None]:
    return args, kwargs


def _as_two(left: Any, right: Any) -> tuple[Sequence[Any], Mapping[str, Any] | None]:
    return (left, right), None


class _ChildCall:
    """Calls the target in the sandbox, and returns `Timed`; each call holds one of the kernel's slots."""

    def __init__(self, spec: CallOperation, tools: Tools) -> None:
        self._spec = spec
        self._listed = tools.allowed.lists(spec.target)
        self._sandbox = tools.sandbox

    async def __call__(self, args: list[Any], kwargs: dict[str, Any] | None) -> Timed:
        spec = self._spec
        try:
            return await self._sandbox.timed_call(
                spec.target,
                args,
                kwargs,
                timeout_s=spec.timeout_s,
                memory_bytes=spec.memory_bytes,
                listed=self._listed,
            )
        except TargetError as exc:
            raise RefusedError(exc) from exc
