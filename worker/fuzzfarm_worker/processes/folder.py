"""Opens a working directory below a root, so that no link on the way leads a program out of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

# O_PATH needs no more rights than chdir(2) does; Windows has none of the three.
_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


def open_inside(root: str, path: str) -> int | None:
    """Open folder ``path``, step by step from ``root``; a name that is a link is refused, wherever it leads.

    Like ``RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH`` of openat2(2), which Python does not have.

    Returns:
        A descriptor, which the caller closes; None on Windows, which has no such thing.

    Raises:
        OSError: It is no folder, lies outside of ``root``, or a link is on the way.
    """
    if os.open not in os.supports_dir_fd:
        return None
    try:
        return _walk(root, _parts(root, path))
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"working directory {path!r}") from error


def _parts(root: str, path: str) -> tuple[str, ...]:
    parts = Path(path).relative_to(root).parts if Path(path).is_relative_to(root) else ("..",)
    if ".." in parts:
        raise OSError(errno.EXDEV, f"outside of {root!r}")
    return parts


def _walk(root: str, parts: tuple[str, ...]) -> int:
    folder = os.open(root, _FLAGS)
    for part in parts:
        try:
            inner = os.open(part, _FLAGS, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder
