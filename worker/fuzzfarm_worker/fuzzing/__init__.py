"""Fuzzing: children that run addressed examples of a target, and keep every example that kills one.

This package imports no Hypothesis; only children, replays and collections do.
"""

from fuzzfarm_worker.fuzzing.children import FuzzChildren
from fuzzfarm_worker.fuzzing.merging import merge
from fuzzfarm_worker.fuzzing.shards import ShardProgress

__all__ = ["FuzzChildren", "ShardProgress", "merge"]
