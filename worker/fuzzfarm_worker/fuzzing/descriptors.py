"""Descriptors when there are none left: the hard limit of a child leaves one more than the target may have."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_more_descriptor() -> Iterator[None]:
    """Let this process open one more file while the context is open, where its hard limit has room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft in {hard, resource.RLIM_INFINITY}:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
