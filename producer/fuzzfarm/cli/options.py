"""Options that several commands share, and the farm that they choose."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from fuzzfarm.cli.failures import ExitCode, UsageError
from fuzzfarm.farm import Farm
from fuzzfarm_shared.schedule import Priority

T = TypeVar("T")

URL_VARIABLE = "FUZZFARM_REDIS_URL"

Redis = Annotated[
    str | None,
    typer.Option("--redis", metavar="URL", help=f"Server of the farm; without it, {URL_VARIABLE}.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, and nothing else.")]
BatchKey = Annotated[str, typer.Argument(metavar="KEY", help="Key of the batch.", show_default=False)]
NewBatchKey = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", help="Key of the batch; without it, a new one is made.", show_default=False),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", "-w", min=1, metavar="N", help="Worker processes to start; without it, one per core.",
        show_default=False,
    ),
]  # fmt: skip

PriorityOption = Annotated[
    Priority, typer.Option("--priority", metavar="WORD", help="high, normal or low: who goes first.")
]
Deadline = Annotated[
    float | None,
    typer.Option("--deadline", metavar="SECONDS", help="Give up what has no outcome after so long.",
                 show_default=False),
]  # fmt: skip

_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def farm_is_given(redis: str | None) -> bool:
    """Return whether a farm was named, by option or environment; otherwise a command may start its own."""
    return bool(redis or os.environ.get(URL_VARIABLE))


def chosen_farm(redis: str | None, workers: int | None = None, **worker_settings: Any) -> Farm:
    """Return the farm that was named, or one of our own with `workers` processes (None: one per core)."""
    if not farm_is_given(redis):
        return Farm.embedded(workers or usable_cores(), **worker_settings)
    if workers is not None:
        raise UsageError("--workers starts workers on this host, and a farm was given: start them there instead")
    return Farm.connect(redis)


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Have `work` go on while the context is open, for whoever awaits the task; then cancel what is left of it."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def size_in_bytes(text: str) -> int:
    """Return the bytes that "512M", "2GiB" or "1000" stand for; units are powers of 1,024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no size: write a number of bytes, or one with K, M or G, such as 512M")
    return int(match[1]) * _UNITS[match[2].upper()]


def run(command: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a command to its end and leave with the exit code that it returns.

    Ctrl-C cancels it; a polite kill does the same, so that an embedded farm is always taken down in order.
    """
    try:
        code = asyncio.run(_stoppable(command))
    except asyncio.CancelledError:
        code = ExitCode.INTERRUPTED
    raise typer.Exit(code)


async def _stoppable(command: Coroutine[Any, Any, int]) -> int:
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await command
