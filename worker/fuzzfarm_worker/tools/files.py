"""Files for tools: opened once, checked as opened, and handed on as they were opened."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fuzzfarm_worker.tools.errors import ToolInputError
from fuzzfarm_worker.tools.workplace import Workplace

if sys.platform == "darwin":
    import fcntl


@contextmanager
def opened_file(path: str | os.PathLike[str], workplace: Workplace) -> Iterator[int]:
    """Give a descriptor of a regular file inside the folders of `workplace`.

    What is checked is the file that was opened, wherever links led, so that changing a link or renaming a folder after
    the check changes nothing: the tool gets this descriptor and no path.

    Raises:
        ToolInputError: for a file that is not there, cannot be read, is no regular file, or lies outside.
    """
    given = os.fspath(path)
    try:
        # Not blocking: a FIFO has no writer yet.
        descriptor = os.open(given, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ToolInputError(f"cannot read {given!r}: {reason}") from exc
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ToolInputError(f"cannot read {given!r}: it is no regular file")
        workplace.check_file(given, _real_path(descriptor, given))
        yield descriptor
    finally:
        os.close(descriptor)


def _real_path(descriptor: int, given: str) -> str:
    """The path of an open file without links; proc_pid_fd(5), F_GETPATH of fcntl(2) on macOS."""
    if sys.platform == "linux":
        path = os.readlink(f"/proc/self/fd/{descriptor}")
    elif sys.platform == "darwin":
        path = os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    else:
        path = os.path.realpath(given)
    return path
