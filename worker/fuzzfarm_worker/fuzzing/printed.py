"""What the running example has printed: both streams of a child go into one file, of which the end is kept."""

from __future__ import annotations

import contextlib
import os
import resource
import sys

MAX_FILE_BYTES = 1_000_000
"""When an example begins and there is more, or half of what a file may have here, it is forgotten."""

MAX_READ_BYTES = 65_536


class Printed:
    """The child's own view of the file.

    Args:
        descriptor: of the file to which both streams go; None: what is printed goes elsewhere and is not kept.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._most = _most_before_an_example()
        self._start = 0

    def begin(self) -> int:
        """An example begins; returns where its output will."""
        if self._descriptor is None:
            return 0
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        if size > self._most:
            os.ftruncate(self._descriptor, 0)
            size = 0
        self._start = size
        return size

    def taken(self) -> str:
        """Return the end of what the example has printed so far."""
        if self._descriptor is None:
            return ""
        for stream in (sys.stdout, sys.stderr):
            # A target may have closed it, or put something else in its place.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        start = max(self._start if self._start <= size else 0, size - MAX_READ_BYTES)
        return os.pread(self._descriptor, size - start, start).decode("utf-8", "backslashreplace")


def _most_before_an_example() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return MAX_FILE_BYTES if soft == resource.RLIM_INFINITY else min(MAX_FILE_BYTES, soft // 2)
