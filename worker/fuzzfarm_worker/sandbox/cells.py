"""Cells: a few numbers that a child and its worker both see, whatever becomes of the child.

The child writes aligned 64-bit numbers with plain stores, so what it was doing survives its death and costs it well
under a microsecond per call.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from enum import IntEnum
from pathlib import Path

SIZE_BYTES = mmap.PAGESIZE
"""A mapping cannot be smaller than a page."""

NO_LIMIT = 2**62
"""More calls than any child gets."""


class Cell(IntEnum):
    """What each cell holds."""

    STARTED = 0
    """Start of the call in `RUNNING`, `time.monotonic_ns()`: one clock for all processes of a host."""
    RUNNING = 1
    """Number of the call that runs, or ran last: calls of a child are numbered from 1."""
    LIMIT = 2
    """The child starts no call with this number or a higher one, but gives it back."""


def open_memory(name: str) -> int:
    """Return a descriptor of an empty file that only we can reach, in memory where the system can do that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Cells:
    """The cells, mapped from an open descriptor, which may be closed afterwards."""

    def __init__(self, descriptor: int, file: Path | None = None) -> None:
        """Map `descriptor`, growing it to one page where needed; `file` is ours to remove."""
        if os.fstat(descriptor).st_size < SIZE_BYTES:
            os.ftruncate(descriptor, SIZE_BYTES)
        self._map = mmap.mmap(descriptor, SIZE_BYTES)
        self._file = file
        self.numbers = memoryview(self._map).cast("q")
        """The numbers by their :class:`Cell`."""

    def close(self) -> None:
        """Unmap them, and remove their file."""
        self.numbers.release()
        self._map.close()
        self.remove_file()

    def remove_file(self) -> None:
        """Remove their file, if they have one; they stay mapped."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def new_cells(file: Path | None = None) -> tuple[int, Cells]:
    """Return new cells and their descriptor, which is the caller's to close.

    Args:
        file: where they are kept, so that they outlive us; where that cannot be, and for None, only in memory.
    """
    descriptor, kept = _open_file(file), file
    if descriptor is None:
        descriptor, kept = open_memory("fuzzfarm-cells"), None
    try:
        return descriptor, Cells(descriptor, kept)
    except BaseException:
        os.close(descriptor)
        raise


def _open_file(file: Path | None) -> int | None:
    """Return a descriptor of a new file with room for the cells: a store into a page without any kills the process."""
    if file is None:
        return None
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        os.posix_fallocate(descriptor, 0, SIZE_BYTES)
    except (OSError, AttributeError):  # full; not on macOS
        os.close(descriptor)
        file.unlink(missing_ok=True)
        return None
    return descriptor
