"""Calls of Python functions: in the worker, or in children that may die without harm to it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.operations import CallOperation
from fuzzfarm_shared.outcomes import ErrorKind
from fuzzfarm_shared.targets import check_installed
from fuzzfarm_worker.failures import OperationFailedError, PoisonError
from fuzzfarm_worker.handlers.base import Handler, RefusedError, Tools
from fuzzfarm_worker.sandbox import Timed
from fuzzfarm_worker.tools.errors import ToolPlaceError

_PLACE_ERROR = f"{ToolPlaceError.__module__}.{ToolPlaceError.__qualname__}"


def call_handler(spec: CallOperation, tools: Tools, *, recorded: bool = False) -> Handler:
    """Return the handler of calls; raises TargetError for a target that may not or cannot be called here."""
    if spec.isolation == "child" or recorded:
        tools.allowed.check_target(spec.target)
        check_installed(spec.target)
        # Its time limit is the sandbox's: it counts from the start in the child, and kills.
        call = _RecordedCall(spec, tools) if recorded else _ChildCall(spec, tools)
        return Handler(call, _as_two, None, spec.retries, spec.retry_delay_s)
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


class _RecordedCall(_ChildCall):
    """Calls the target in the sandbox after a worker died with it, or with a neighbour.

    If its child dies too, it is the one, and is not tried again.
    """

    def __init__(self, spec: CallOperation, tools: Tools) -> None:
        super().__init__(spec, tools)
        self._allowed = tools.allowed

    async def __call__(self, args: list[Any], kwargs: dict[str, Any] | None) -> Any:
        try:
            return await super().__call__(args, kwargs)
        except OperationFailedError as exc:
            if exc.error.type == _PLACE_ERROR:
                return await self._call_here(args, kwargs)
            if exc.error.kind is ErrorKind.KILLED:
                message = f"{exc.error.message}; before that a worker died that ran it, or was about to: it is given up"
                raise PoisonError(replace(exc.error, message=message), exc.span) from exc
            raise

    async def _call_here(self, args: list[Any], kwargs: dict[str, Any] | None) -> Any:
        """Call an analysis tool, which runs its program in a child of this worker, and nothing else here."""
        async with asyncio.timeout(self._spec.timeout_s):
            value = self._allowed.load_target(self._spec.target)(*args, **(kwargs or {}))
            return await value if inspect.isawaitable(value) else value
