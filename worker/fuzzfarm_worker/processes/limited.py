"""Sets limits on itself and becomes another program: how limits are set where there is no guardian.

It runs as a script (``python -I -S limited.py LIMITS PROGRAM ARGUMENT...``), costs the start of an interpreter, and is
free of races: the program has its limits, soft and hard, from its first instruction.
"""

from __future__ import annotations

import os
import resource
import sys

CPU_TO_REPORT_S = 1
"""Between SIGXCPU and SIGKILL: it lets a program report what it was doing."""

_KINDS = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_CORE")


def limit_self(values: list[int | None], *, spare_files: int = 0) -> None:
    """Set the limits of this process, soft and hard, in the order of ``Limits``; None leaves one as it is.

    It can have so many spare files: what it may open beyond its soft limit once it raises that.
    """
    spare = {"RLIMIT_CPU": CPU_TO_REPORT_S, "RLIMIT_NOFILE": spare_files}
    for kind, wanted in zip(_KINDS, values, strict=True):
        if wanted is not None:
            _, hard = resource.getrlimit(getattr(resource, kind))
            value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            most = value + spare.get(kind, 0)
            new_hard = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(getattr(resource, kind), (value, new_hard))


def main() -> None:
    """Set the comma-separated limits of the first argument (empty: unchanged) and run the rest."""
    limit_self([int(text) if text else None for text in sys.argv[1].split(",")])
    try:
        os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.exit(f"cannot start {sys.argv[2]!r}: {error.strerror}")


if __name__ == "__main__":
    main()
