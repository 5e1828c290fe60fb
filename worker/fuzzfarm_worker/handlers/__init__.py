"""How each kind of operation is run: a handler turns the shared options of operations into something to call."""

from __future__ import annotations

from fuzzfarm_shared.operations import AnyOperation, CallOperation, SubprocessJob
from fuzzfarm_worker.handlers.base import Handler, RefusedError, Tools
from fuzzfarm_worker.handlers.calls import call_handler
from fuzzfarm_worker.handlers.subprocesses import subprocess_handler

__all__ = ["Handler", "RefusedError", "Tools", "handler_for"]


def handler_for(spec: AnyOperation, tools: Tools) -> Handler:
    """Return what runs operations with the options of `spec`.

    Raises:
        TargetError: when this worker cannot or may not run them.
    """
    if isinstance(spec, CallOperation):
        return call_handler(spec, tools)
    if isinstance(spec, SubprocessJob):
        return subprocess_handler(spec, tools)
    raise TypeError(f"{spec.kind} operations are run in shards, not one by one")
