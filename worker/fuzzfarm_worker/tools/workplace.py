"""Where tools work: a worker's processes, programs and folders, or those of the program that uses us as a library."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.tools.errors import ToolInputError, ToolMissingError, ToolPlaceError

ZYGOTE = "fuzzfarm_worker.sandbox.zygote"
"""What children of isolation="child" are forked from."""


class Rules(Protocol):
    """Which programs and files may be used; an `AllowList` is one."""

    def program(self, name: str) -> str:
        """Return the path of a program; TargetError for one that is not there or not allowed."""
        ...

    def holds(self, path: str) -> bool:
        """Return whether a path without links lies inside the allowed folders."""
        ...


class Folders:
    """Any program, and files inside of some folders.

    Args:
        roots: the folders; None: every file may be read.
    """

    def __init__(self, roots: Iterable[str | os.PathLike[str]] | None) -> None:
        self._roots = None if roots is None else [Path(root).resolve() for root in roots]

    def program(self, name: str) -> str:
        """See `Rules.program`."""
        path = shutil.which(name)
        if path is None:
            raise TargetError(name, f"there is no program {name!r} on this host")
        return path

    def holds(self, path: str) -> bool:
        """See `Rules.holds`."""
        return self._roots is None or any(Path(path).is_relative_to(root) for root in self._roots)


class Workplace:
    """What a tool may use.

    Args:
        processes: starts it.
        rules: say which programs and files.
    """

    def __init__(self, processes: ProcessManager, rules: Rules) -> None:
        self.processes = processes
        self._rules = rules

    def program(self, name: str, program: str, install: str) -> str:
        """Return the path of a tool's program; raises ToolMissingError."""
        try:
            return self._rules.program(program)
        except TargetError as exc:
            missing = shutil.which(program) is None
            hint = f"{name} is not installed on this host: {install}" if missing else str(exc)
            raise ToolMissingError(name, hint) from exc

    def check_file(self, given: str, real: str) -> None:
        """Raise ToolInputError for a file outside of the allowed folders."""
        if not self._rules.holds(real):
            raise ToolInputError(
                f"{given!r} is outside of the folders that tools may read here: move it, or allow its folder "
                "(fuzzfarm worker --allow-root, or confined(roots=...))"
            )


_current: ContextVar[Workplace | None] = ContextVar("workplace", default=None)


def enter(workplace: Workplace) -> None:
    """Have tools that are called from this task on, and from tasks that it starts, work here."""
    _current.set(workplace)


@asynccontextmanager
async def current() -> AsyncGenerator[Workplace, None]:
    """Give the workplace of the caller, or one of its own that may read every file.

    Raises:
        ToolPlaceError: in a child of isolation="child", which knows nothing of its worker's folders.
    """
    workplace = _current.get()
    if workplace is not None:
        yield workplace
        return
    if _in_sandbox():
        raise ToolPlaceError('tools run in children of their own already: call them with isolation="worker"')
    async with ProcessManager() as processes:
        yield Workplace(processes, Folders(None))


@asynccontextmanager
async def confined(
    processes: ProcessManager | None = None, roots: Iterable[str | os.PathLike[str]] | None = None
) -> AsyncGenerator[None, None]:
    """Have tools that are called inside use one process manager and read only files inside of `roots`.

    Args:
        processes: starts them; one of its own, which ends with the context, unless given.
        roots: folders; None: every file may be read.
    """
    if processes is None:
        async with ProcessManager() as own, confined(own, roots):
            yield
        return
    token = _current.set(Workplace(processes, Folders(roots)))
    try:
        yield
    finally:
        _current.reset(token)


def _in_sandbox() -> bool:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == ZYGOTE
