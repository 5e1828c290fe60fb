"""The command exec: subprocess jobs from the command line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from fuzzfarm.cli.command_template import CommandTemplate, keyed
from fuzzfarm.cli.failures import ExitCode, UsageError
from fuzzfarm.cli.following import Follower
from fuzzfarm.cli.meter import meter_for
from fuzzfarm.cli.options import Json, NewBatchKey, Redis, chosen_farm, farm_is_given, run, size_in_bytes, usable_cores
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.views import count, error_text
from fuzzfarm_shared.operations import DEFAULT_OUTPUT_BYTES, DEFAULT_TIMEOUT_S, SubprocessJob
from fuzzfarm_shared.outcomes import Outcome, SubprocessResult

Command = Annotated[
    list[str],
    typer.Argument(metavar="CMD... [::: INPUT...]", help="The command; {} is replaced by each input.",
                   show_default=False),
]  # fmt: skip
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, metavar="N", help="Jobs at once; without it, one per core.",
                 show_default=False),
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
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="Address space of each job, such as 512M.", show_default=False),
]
Cwd = Annotated[
    str | None,
    typer.Option("--cwd", metavar="FOLDER", help="Working directory of the jobs, on the worker.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class Jobsheet:
    """Which jobs to run, and how many at once.

    Attributes:
        template: the command.
        arg_file: where more inputs are, or None.
        options: fields of `SubprocessJob` that hold for every job.
    """

    template: CommandTemplate
    arg_file: Path | None
    options: dict[str, Any]

    def jobs(self) -> Iterator[SubprocessJob]:
        """Yield one job for each input, lazily."""
        if self.template.inputs is None and self.arg_file is None:
            key = " ".join(self.template.words)[:200]
            yield self._job(key, list(self.template.words))
            return
        for key, given in keyed(self._inputs()):
            yield self._job(key, self.template.command(given))

    def _job(self, key: str, command: list[str]) -> SubprocessJob:
        return SubprocessJob(key=key, command=command, **self.options)

    def _inputs(self) -> Iterator[str]:
        yield from self.template.inputs or ()
        if self.arg_file is None:
            return
        if str(self.arg_file) == "-":
            yield from (line.rstrip("\n") for line in sys.stdin)
            return
        try:
            with self.arg_file.open() as lines:
                yield from (line.rstrip("\n") for line in lines)
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"cannot read inputs from {self.arg_file}: {exc}") from exc


@dataclass(slots=True)
class Printer:
    """Prints outputs of jobs as they come, or in the order of their inputs."""

    output: Output
    keep_order: bool
    tag: bool
    order: list[str] = field(default_factory=list)
    failed: int = 0
    printed: int = 0
    _waiting: dict[str, Outcome] = field(default_factory=dict)

    def take(self, outcome: Outcome) -> None:
        """Print an outcome, or keep it until it is its turn."""
        if not self.keep_order:
            self._print(outcome)
            return
        self._waiting[outcome.key] = outcome
        while self.printed < len(self.order) and self.order[self.printed] in self._waiting:
            self._print(self._waiting.pop(self.order[self.printed]))

    def _print(self, outcome: Outcome) -> None:
        self.printed += 1
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
        return b"".join(b"%s\t%s" % (key.encode("utf-8", "replace"), line) for line in data.splitlines(keepends=True))

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
    cwd: Cwd = None,
    key: NewBatchKey = None,
    redis: Redis = None,
    as_json: Json = False,
) -> None:
    """Run a command for each input, watched and in parallel.

    {} in the command is replaced by the input, {.} {/} {//} {/.} by its path without extension, its file name, its
    folder, and its file name without extension; without any of them the input is appended. Inputs follow :::, or are
    lines of --arg-file. Every job is keyed by its input.
    """
    options: dict[str, Any] = {
        "timeout_s": timeout_s or None,
        "retries": retries,
        "max_output_bytes": max_output,
        "cwd": cwd,
        "binary": not as_json,
        "check": retries > 0,
        "limits": {"memory_bytes": None if memory is None else size_in_bytes(memory)},
    }
    sheet = Jobsheet(CommandTemplate.parse(command), arg_file, options)
    run(_exec(sheet, jobs, key, redis, Printer(Output(as_json), keep_order, tag)))


async def _exec(sheet: Jobsheet, jobs: int | None, key: str | None, redis: str | None, printer: Printer) -> int:
    if jobs is not None and farm_is_given(redis):
        raise UsageError("-j limits an embedded farm, and one was given: start its workers with --max-concurrency")
    output = printer.output
    async with chosen_farm(redis, None if farm_is_given(redis) else 1, max_concurrency=jobs or usable_cores()) as farm:
        batch = await farm.submit(_remembering(sheet, printer), key)
        try:
            live = output.live_console is not None
            status = await Follower(farm, batch, meter_for(output), jobs=live).follow(printer.take)
        except asyncio.CancelledError:
            await batch.cancel()
            raise
    if not status.total:
        output.note("there was no input: nothing was run")
    if printer.failed:
        output.note(f"{printer.failed:,} of {count(status.total, 'job')} failed")
    return ExitCode.FAILURES if printer.failed else ExitCode.CLEAN


def _remembering(sheet: Jobsheet, printer: Printer) -> Iterator[SubprocessJob]:
    """Yield the jobs, and tell the printer their order when it needs it."""
    for job in sheet.jobs():
        if printer.keep_order and job.key is not None:
            printer.order.append(job.key)
        yield job


def _as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")
