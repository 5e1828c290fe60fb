"""Options for resource limits, which `exec` and `fuzz` share."""

from __future__ import annotations

from typing import Annotated

import typer

from fuzzfarm.cli.options import size_in_bytes

Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="Address space of each child, such as 512M.", show_default=False),
]
Cpu = Annotated[
    int | None,
    typer.Option("--cpu", metavar="SECONDS", help="CPU seconds of each job or example.", show_default=False),
]
FileSize = Annotated[
    str | None,
    typer.Option("--file-size", metavar="SIZE", help="Largest file that a child may write, such as 10M.",
                 show_default=False),
]  # fmt: skip
OpenFiles = Annotated[
    int | None,
    typer.Option("--open-files", metavar="N", help="Descriptors of each child.", show_default=False),
]
Processes = Annotated[
    int | None,
    typer.Option("--processes", metavar="N", show_default=False,
                 help="Processes of the worker's user, all together; root is not held to it."),
]  # fmt: skip


def chosen_limits(
    *, memory: str | None, cpu_s: int | None, file_size: str | None, open_files: int | None, processes: int | None
) -> dict[str, int | None]:
    """Return the fields of `ProcessLimits` that these options give.

    Raises:
        UsageError: for a size that is none.
    """
    return {
        "memory_bytes": None if memory is None else size_in_bytes(memory),
        "cpu_s": cpu_s,
        "file_size_bytes": None if file_size is None else size_in_bytes(file_size),
        "open_files": open_files,
        "processes": processes,
    }
