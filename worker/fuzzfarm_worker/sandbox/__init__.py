"""Sandboxed children: interpreters that may die, forked in milliseconds from a process that has the target imported.

    worker    Sandbox ── Group (one per module) ── Caller (one per child): calls in, answers out, time limits
                  │              │
    zygote        └── Zygote ════╪══ imports the module once; forks, reaps and cleans up after its children
                                 │
    child         serving  ══════╧══ limits itself, then answers one call after another

The names are loaded when they are asked for: zygotes import this package too, and stay small without the worker's side.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzzfarm_worker.sandbox.caller import Timed
    from fuzzfarm_worker.sandbox.pool import Sandbox

__all__ = ["Sandbox", "Timed"]

_MODULES = {"Sandbox": "pool", "Timed": "caller"}


def __getattr__(name: str) -> Any:
    """Import the module of a public name."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
