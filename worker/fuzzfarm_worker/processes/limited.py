"""Sets limits on itself and becomes another program: how limits are set where there is no guardian.

It runs as a script (``python -I -S limited.py LIMITS PROGRAM ARGUMENT...``), costs the start of an interpreter, and is
free of races: the program has its limits, soft and hard, from its first instruction.
"""

from __future__ import annotations

import os
import resource
import sys

_KINDS = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_CORE")


def limit_self(values: list[int | None]) -> None:
    """Set the limits of this process, soft and hard, in the order of ``Limits``; None leaves one as it is."""
    for kind, wanted in zip(_KINDS, values, strict=True):
        if wanted is not None:
            _, hard = resource.getrlimit(getattr(resource, kind))
            value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            # One second between SIGXCPU and SIGKILL lets a program report what it was doing.
            new_hard = value + 1 if kind == "RLIMIT_CPU" and (hard < 0 or value < hard) else value
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
