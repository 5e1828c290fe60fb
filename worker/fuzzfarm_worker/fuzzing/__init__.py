"""Fuzzing: children that run addressed examples of a target, and keep every example that kills one.

The names are loaded when they are asked for: children import this package too, and without the worker's side of it
they start in two thirds of the time. Only children, replays and collections import Hypothesis, and a worker that runs
targets itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzzfarm_worker.fuzzing.children import FuzzChildren
    from fuzzfarm_worker.fuzzing.shards import ShardProgress

__all__ = ["FuzzChildren", "ShardProgress"]

_MODULES = {"FuzzChildren": "children", "ShardProgress": "shards"}


def __getattr__(name: str) -> Any:
    """Import the module of a public name."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
