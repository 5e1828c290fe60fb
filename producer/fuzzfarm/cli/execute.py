"""The command exec: subprocess jobs from the command line."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from fuzzfarm.cli.command_template import CommandTemplate
from fuzzfarm.cli.failures import ExitCode
from fuzzfarm.cli.following import Follower
from fuzzfarm.cli.jobsheet import Jobsheet
from fuzzfarm.cli.limit_options import Cpu, FileSize, Memory, OpenFiles, Processes, chosen_limits
from fuzzfarm.cli.meter import meter_for
from fuzzfarm.cli.options import (
    Deadline,
    Json,
    NewBatchKey,
    PriorityOption,
    Redis,
    chosen_farm,
    farm_is_given,
    run,
    usable_cores,
)
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.views import count, error_text
from fuzzfarm.cli.window import Window
from fuzzfarm.farm import Farm
from fuzzfarm.submission import Submission
from fuzzfarm_shared.errors import BatchNotFoundError
from fuzzfarm_shared.operations import DEFAULT_OUTPUT_BYTES, DEFAULT_TIMEOUT_S
from fuzzfarm_shared.outcomes import BatchStatus, Outcome, SubprocessResult
from fuzzfarm_shared.schedule import Priority, Schedule

Command = Annotated[
    list[str],
    typer.Argument(metavar="CMD... [::: INPUT...]", help="The command; {} is replaced by each input.",
                   show_default=False),
]  # fmt: skip
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, metavar="N", show_default=False,
                 help="Jobs at once; without it, one per core, or as many as a given farm runs."),
]  # fmt: skip
KeepOrder = Annotated[bool, typer.Option("--keep-order", "-k", help="Print outputs in the order of the inputs.")]
ArgFile = Annotated[
    Path | None,
    typer.Option("--arg-file", "-a", metavar="FILE", help="Read inputs from a file, one per line; - is stdin.",
                 show_default=False),
]  # fmt: skip
Tag = Annotated[bool, typer.Option("--tag", help="Begin each line of output with the key of its job, and a tab.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Seconds for each job; 0: no limit.")]
Retries = Annotated[int, typer.Option("--retries", min=0, metavar="N", help="Further tries of a job that failed.")]
MaxOutput = Annotated[
    int, typer.Option("--max-output", metavar="BYTES", help="Bytes kept of each output stream of a job.")
]
Cwd = Annotated[
    str | None,
    typer.Option("--cwd", metavar="FOLDER", help="Working directory of the jobs, on the worker.", show_default=False),
]


@dataclass(slots=True)
class Printer:
    """Prints outputs of jobs as they come, or in the order of their inputs."""

    output: Output
    keep_order: bool
    tag: bool
    failed: int = 0
    _order: deque[str] = field(default_factory=deque)
    _waiting: dict[str, Outcome] = field(default_factory=dict)

    def expect(self, key: str) -> None:
        """Note the key of a job, in the order of inputs."""
        if self.keep_order:
            self._order.append(key)

    def take(self, outcome: Outcome) -> None:
        """Print an outcome, or keep it until it is its turn."""
        if not self.keep_order:
            self._print(outcome)
            return
        self._waiting[outcome.key] = outcome
        while self._order and self._order[0] in self._waiting:
            self._print(self._waiting.pop(self._order.popleft()))

    def _print(self, outcome: Outcome) -> None:
        self.output.record(outcome)
        if outcome.error is not None:
            self.failed += 1
            self._complain(outcome.key, error_text(outcome.error))
        elif isinstance(outcome.value, SubprocessResult):
            self._print_result(outcome.key, outcome.value)

    def _print_result(self, key: str, result: SubprocessResult) -> None:
        if not self.output.as_json:
            self.output.raw(self._tagged(key, _as_bytes(result.stdout)))
            self.output.raw(self._tagged(key, _as_bytes(result.stderr)), error=True)
        if result.exit_code != 0:
            self.failed += 1
            self._complain(key, result.signal or f"exit code {result.exit_code}")
        if result.truncated:
            self._complain(key, "output cut: raise --max-output to keep more")

    def _tagged(self, key: str, data: bytes) -> bytes:
        if not self.tag:
            return data
        lines = data.removesuffix(b"\n").split(b"\n") if data else []
        return b"".join(b"%s\t%s\n" % (key.encode(), line) for line in lines)

    def _complain(self, key: str, text: str) -> None:
        if not self.output.as_json:
            self.output.complain(f"{key}: {text}")


def exec_(
    command: Command,
    jobs: Jobs = None,
    keep_order: KeepOrder = False,
    tag: Tag = False,
    arg_file: ArgFile = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
    retries: Retries = 0,
    max_output: MaxOutput = DEFAULT_OUTPUT_BYTES,
    memory: Memory = None,
    cpu_s: Cpu = None,
    file_size: FileSize = None,
    open_files: OpenFiles = None,
    processes: Processes = None,
    cwd: Cwd = None,
    key: NewBatchKey = None,
    priority: PriorityOption = Priority.NORMAL,
    deadline_s: Deadline = None,
    redis: Redis = None,
    as_json: Json = False,
) -> None:
    """Run a command for each input, watched and in parallel.

    {} in the command is replaced by the input, {.} {/} {//} {/.} by its path without extension, its file name, its
    folder, and its file name without extension; without any of them the input is appended. Inputs follow :::, or are
    the lines of --arg-file, or of standard input when the command has {} and nothing else gives inputs. Without inputs
    it is a single command. Every job is keyed by its input.
    """
    options: dict[str, Any] = {
        "timeout_s": timeout_s or None,
        "retries": retries,
        "max_output_bytes": max_output,
        "cwd": cwd,
        "binary": not as_json,
        "check": retries > 0,
        "limits": chosen_limits(
            memory=memory, cpu_s=cpu_s, file_size=file_size, open_files=open_files, processes=processes
        ),
    }
    sheet = Jobsheet(CommandTemplate.parse(command), arg_file, options)
    schedule = Schedule(priority, deadline_s)
    run(_exec(sheet, jobs, key, schedule, redis, Printer(Output(as_json), keep_order, tag)))


async def _exec(
    sheet: Jobsheet, jobs: int | None, key: str | None, schedule: Schedule, redis: str | None, printer: Printer
) -> int:
    given = farm_is_given(redis)
    window = Window(sheet.operations(printer.expect), jobs if given else None)
    output = printer.output
    if sheet.reads_standard_input and sys.stdin is not None and sys.stdin.isatty():
        output.note("reading inputs from the terminal, one in a line; Ctrl-D ends them")
    async with chosen_farm(redis, None if given else 1, max_concurrency=jobs or usable_cores()) as farm:
        status = await _run_all(farm, window, key, schedule, printer)
    if not status.total:
        output.note("there was no input: nothing was run")
    if printer.failed:
        output.note(f"{printer.failed:,} of {count(status.total, 'job')} failed")
    return ExitCode.FAILURES if printer.failed else ExitCode.CLEAN


async def _run_all(farm: Farm, window: Window, key: str | None, schedule: Schedule, printer: Printer) -> BatchStatus:
    """Submit jobs while their inputs come, and print their outcomes; whatever ends this early cancels the batch."""
    output = printer.output
    batch, submission = farm.prepare(window, key, schedule=schedule)
    follower = Follower(farm, batch, meter_for(output), jobs=not output.as_json)

    def take(outcome: Outcome) -> None:
        window.let_in()
        printer.take(outcome)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_submit(submission, may_exist=key is not None))
            await submission.begun.wait()
            status = await follower.follow(take)
            window.close()
            return status
    except asyncio.CancelledError:
        output.note("stopping; a second Ctrl-C leaves at once")
        with suppress(BatchNotFoundError):  # nothing was submitted yet
            output.note(f"{count(await batch.cancel(), 'job')} cancelled")
        raise
    except Exception:
        if submission.created:
            await batch.cancel()
        raise


async def _submit(submission: Submission, *, may_exist: bool) -> None:
    try:
        await submission.run(may_exist=may_exist)
    finally:
        submission.begun.set()  # whoever waits for it goes on to what became of the batch


def _as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")
