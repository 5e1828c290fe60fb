"""The command submit: operations from a file."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from fuzzfarm.cli.batches import report
from fuzzfarm.cli.failures import ExitCode, UsageError
from fuzzfarm.cli.operation_files import check, operations, spooled
from fuzzfarm.cli.options import (
    Deadline,
    Json,
    NewBatchKey,
    PriorityOption,
    Redis,
    Workers,
    chosen_farm,
    farm_is_given,
    run,
)
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.views import count
from fuzzfarm_shared.schedule import Priority, Schedule

File = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="JSON Lines, or TOML (*.toml); - is JSON Lines on stdin.", show_default=False),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the outcomes and print them.")]


def submit(
    file: File,
    wait: Wait = True,
    key: NewBatchKey = None,
    priority: PriorityOption = Priority.NORMAL,
    deadline_s: Deadline = None,
    workers: Workers = None,
    redis: Redis = None,
    as_json: Json = False,
) -> None:
    """Submit the operations of a file as one batch.

    Each line, or [[operation]] table, has `kind` (call, fuzz or subprocess) and the fields of that operation. The
    whole file is checked before anything is sent. Outcomes are printed as they come. Without a farm it starts one,
    and stops it at the end.
    """
    if not wait and not farm_is_given(redis):
        raise UsageError("--no-wait needs a farm that goes on: give --redis, or set FUZZFARM_REDIS_URL")
    source: AbstractContextManager[Path] = spooled(sys.stdin.buffer) if str(file) == "-" else nullcontext(file)
    with source as path:
        total = check(path)
        schedule = Schedule(priority, deadline_s)
        run(_submit(path, total, wait, key, schedule, workers, redis, Output(as_json)))


async def _submit(
    path: Path,
    total: int,
    wait: bool,
    key: str | None,
    schedule: Schedule,
    workers: int | None,
    redis: str | None,
    output: Output,
) -> int:
    async with chosen_farm(redis, workers) as farm:
        batch = await farm.submit(operations(path), key, priority=schedule.priority, deadline_s=schedule.deadline_s)
        output.note(f"submitted {count(total, 'operation')} as batch {batch.key}")
        if wait:
            return await report(farm, batch, output)
        status = await batch.status()
        output.record(status)
        output.say(f"follow it with `fuzzfarm watch {batch.key}`")
        return ExitCode.CLEAN
