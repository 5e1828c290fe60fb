"""Commands that look at batches of a farm: batches, status, watch, results, cancel."""

from __future__ import annotations

from typing import Annotated

import typer

from fuzzfarm.batch import Batch
from fuzzfarm.cli.failures import ExitCode
from fuzzfarm.cli.finding_views import show_finding
from fuzzfarm.cli.following import Follower
from fuzzfarm.cli.meter import meter_for
from fuzzfarm.cli.options import BatchKey, Json, Redis, run
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.views import batch_line, batch_table, error_text, is_clean, outcome_text, value_text
from fuzzfarm.farm import Farm
from fuzzfarm_shared.outcomes import BatchAggregate, BatchStatus, FuzzResult, Outcome

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Show the newest N.")]
Cursor = Annotated[
    str | None,
    typer.Option("--cursor", metavar="CURSOR", help="Go on behind this place of the stream.", show_default=False),
]


def batches(limit: Limit = 20, redis: Redis = None, as_json: Json = False) -> None:
    """List the newest batches of a farm."""
    run(_batches(limit, redis, Output(as_json)))


def status(key: BatchKey, redis: Redis = None, as_json: Json = False) -> None:
    """Show how far a batch is."""
    run(_status(key, redis, Output(as_json)))


def watch(key: BatchKey, cursor: Cursor = None, redis: Redis = None, as_json: Json = False) -> None:
    """Follow a batch to its end.

    Each outcome is printed as it comes; on a terminal, subprocess jobs are shown while they run. Ctrl-C stops watching;
    the batch goes on.
    """
    run(_watch(key, cursor, redis, Output(as_json)))


def results(key: BatchKey, redis: Redis = None, as_json: Json = False) -> None:
    """Print the results and errors recorded so far."""
    run(_results(key, redis, Output(as_json)))


def cancel(key: BatchKey, redis: Redis = None, as_json: Json = False) -> None:
    """Cancel what has no outcome yet.

    Running children are killed.
    """
    run(_cancel(key, redis, Output(as_json)))


async def _batches(limit: int, redis: str | None, output: Output) -> int:
    async with Farm.connect(redis) as farm:
        statuses = await farm.batches(limit)
    for status in statuses:
        output.record(status)
    output.say(batch_table(statuses) if statuses else "no batches: submit one with `fuzzfarm submit FILE`")
    return ExitCode.CLEAN


async def _status(key: str, redis: str | None, output: Output) -> int:
    async with Farm.connect(redis) as farm:
        status = await farm.batch(key).status()
    output.record(status)
    output.say(batch_table([status]))
    return verdict(status)


async def _watch(key: str, cursor: str | None, redis: str | None, output: Output) -> int:
    async with Farm.connect(redis) as farm:
        return await report(farm, farm.batch(key), output, cursor)


async def _results(key: str, redis: str | None, output: Output) -> int:
    async with Farm.connect(redis) as farm:
        aggregate = await farm.batch(key).results()
    output.record(aggregate)
    _show_aggregate(aggregate, output)
    found = any(isinstance(value, FuzzResult) and value.findings for value in aggregate.results.values())
    return ExitCode.FAILURES if aggregate.errors or found else ExitCode.CLEAN


async def _cancel(key: str, redis: str | None, output: Output) -> int:
    async with Farm.connect(redis) as farm:
        batch = farm.batch(key)
        cancelled = await batch.cancel()
        status = await batch.status()
    output.record({"key": key, "cancelled": cancelled, "status": status})
    output.say(f"{cancelled:,} cancelled; {batch_line(status)}")
    return ExitCode.CLEAN


async def report(farm: Farm, batch: Batch, output: Output, cursor: str | None = None) -> int:
    """Print each outcome of a batch as it comes, then its counters; return the exit code."""
    clean = True

    def take(outcome: Outcome) -> None:
        nonlocal clean
        clean = clean and is_clean(outcome)
        output.record(outcome)
        output.say(outcome_text(outcome), "" if outcome.ok else "red")
        if isinstance(outcome.value, FuzzResult):
            for finding in outcome.value.findings:
                show_finding(output, finding, saved=False)

    live = output.live_console is not None
    status = await Follower(farm, batch, meter_for(output), jobs=live).follow(take, cursor)
    output.note(batch_line(status))
    return verdict(status) if clean else ExitCode.FAILURES


def verdict(status: BatchStatus) -> ExitCode:
    """Return the exit code that the counters of a batch stand for."""
    return ExitCode.FAILURES if status.failed or status.cancelled else ExitCode.CLEAN


def _show_aggregate(aggregate: BatchAggregate, output: Output) -> None:
    for key, value in aggregate.results.items():
        output.say(f"ok      {key}  {value_text(value)}")
    for key, error in aggregate.errors.items():
        output.say(f"FAILED  {key}  {error_text(error)}", "red")
    output.note(batch_line(aggregate.status))
