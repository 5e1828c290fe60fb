"""How each kind of operation is run: a handler turns the shared options of operations into something to call."""

from __future__ import annotations

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.operations import AnyOperation, CallOperation, SubprocessJob
from fuzzfarm_worker.handlers.base import Handler, RefusedError, Tools
from fuzzfarm_worker.handlers.calls import call_handler
from fuzzfarm_worker.handlers.subprocesses import subprocess_handler

__all__ = ["Handler", "RefusedError", "Tools", "handler_for"]


log = get_logger(__name__)


def handler_for(spec: AnyOperation, tools: Tools, *, recorded: bool = False) -> Handler:
    """Return what runs operations with the options of `spec`.

    Args:
        spec: the options that they share.
        tools: what it may use.
        recorded: a worker died with these operations: run each where its death is known and costs no worker.

    Raises:
        TargetError: when this worker cannot or may not run them, whatever the reason: anything else would leave the
            chunk to its lease, as if the worker had died of it.
    """
    try:
        return _handler(spec, tools, recorded)
    except TargetError:
        raise
    except Exception as exc:
        log.exception("operations cannot be prepared", kind=spec.kind)
        raise TargetError(
            spec.kind, f"this worker cannot prepare {spec.kind} operations with such options: {exc}"
        ) from exc


def _handler(spec: AnyOperation, tools: Tools, recorded: bool) -> Handler:
    if isinstance(spec, CallOperation):
        return call_handler(spec, tools, recorded=recorded)
    if isinstance(spec, SubprocessJob):
        return subprocess_handler(spec, tools)
    raise TypeError(f"{spec.kind} operations are run in shards, not one by one")
