"""Commands about what was found: findings, show, replay and forget."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fuzzfarm.cli import finding_files, fuzz_process
from fuzzfarm.cli.failures import ExitCode, UsageError
from fuzzfarm.cli.finding_files import SavedFinding
from fuzzfarm.cli.finding_lookup import everywhere, find, of_batch
from fuzzfarm.cli.finding_views import (
    DECORATOR,
    REPLAY,
    SCRIPT,
    finding_table,
    finding_title,
    show_finding,
    show_whole,
)
from fuzzfarm.cli.options import Json, Redis, farm_is_given, run
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.plain_data import finding_record
from fuzzfarm.cli.views import count
from fuzzfarm.farm import Farm
from fuzzfarm_shared.errors import FuzzfarmError
from fuzzfarm_shared.outcomes import Finding

OptionalKey = Annotated[
    str | None,
    typer.Argument(metavar="[KEY]", help="Key of a batch; without it, all of the farm, and those saved here.",
                   show_default=False),
]  # fmt: skip
FindingName = Annotated[
    str, typer.Argument(metavar="FINDING", help="Id, beginning of an id, or file of a finding.", show_default=False)
]
Database = Annotated[
    str | None,
    typer.Option("--save-database", metavar="PLACE", show_default=False,
                 help="Add the example to Hypothesis' database there, such as .hypothesis/examples."),
]  # fmt: skip

SaveInput = Annotated[
    Path | None,
    typer.Option("--save-input", metavar="FILE", show_default=False,
                 help="Write there what a command was given, byte for byte."),
]  # fmt: skip

VERDICTS = {"fixed": "FIXED", "still_failing": "STILL FAILING", "flaky": "FLAKY"}


def findings(key: OptionalKey = None, redis: Redis = None, as_json: Json = False) -> None:
    """List findings: those of a batch, or all.

    Without a key: those saved in this folder and, with a farm, those of all its batches.
    """
    run(_findings(key, redis, Output(as_json)))


def show(
    finding: FindingName,
    save_database: Database = None,
    save_input: SaveInput = None,
    redis: Redis = None,
    as_json: Json = False,
) -> None:
    """Show all of one finding, and what reproduces it.

    Run it where the target can be imported, for a script and a line for Hypothesis.
    """
    run(_show(finding, save_database, save_input, redis, Output(as_json)))


def replay(finding: FindingName, redis: Redis = None, as_json: Json = False) -> None:
    """Run the example of a finding again.

    The answer is FIXED (exit code 0), STILL FAILING or FLAKY (1).
    """
    run(_replay(finding, redis, Output(as_json)))


def forget(finding: FindingName, redis: Redis = None, as_json: Json = False) -> None:
    """Forget a finding, here and on the farm.

    When it is seen again, it is a new one.
    """
    run(_forget(finding, redis, Output(as_json)))


async def _findings(key: str | None, redis: str | None, output: Output) -> int:
    found = await everywhere(redis) if key is None else await _kept_from(key, redis)
    for item in found:
        output.record(item.finding)
    if found:
        output.say(finding_table([item.finding for item in found], time.time()))
        output.note("all of one: `fuzzfarm show ID`; run one again: `fuzzfarm replay ID`")
    output.say(count(len(found), "finding"))
    return ExitCode.FAILURES if found else ExitCode.CLEAN


async def _kept_from(key: str, redis: str | None) -> list[SavedFinding]:
    """Return the findings of a batch, and save them here: the batch expires."""
    async with Farm.connect(redis) as farm:
        found = [SavedFinding(finding) for finding in await of_batch(farm.batch(key))]
    for item in found:
        finding_files.save(item)
    return found


async def _show(name: str, database: str | None, file: Path | None, redis: str | None, output: Output) -> int:
    saved = await find(name, redis)
    if file is not None:
        _save_input(saved.finding, file)
    [made] = await fuzz_process.reproducers([saved], database)
    if database is not None and not made["saved"]:
        raise UsageError(f"nothing was saved in {database}: {'; '.join(made['reasons'])}")
    output.record({**finding_record(saved.finding), "reproducers": made})
    sections = [(SCRIPT, made["script"]), (DECORATOR, made["decorator"]), (REPLAY, saved.finding.replay)]
    show_whole(output, saved.finding, [(heading, text) for heading, text in sections if text])
    for reason in made["reasons"]:
        output.note(reason)
    if made["saved"]:
        output.note(f"saved in {database}: the test now runs this example first")
    return ExitCode.CLEAN


def _save_input(finding: Finding, file: Path) -> None:
    if finding.input is None:
        raise UsageError(f"{finding.id} has no input to save: its target is no command, or it has more than 64 KiB")
    try:
        file.write_bytes(finding.input)
    except OSError as exc:
        raise UsageError(f"cannot write {file}: {exc.strerror}") from exc


async def _forget(name: str, redis: str | None, output: Output) -> int:
    saved = await find(name, redis)
    places = ["here"] if finding_files.remove(saved.finding.id) else []
    if farm_is_given(redis):
        async with Farm.connect(redis) as farm:
            places += ["on the farm"] if await farm.forget(saved.finding) else []
    output.record({"id": saved.finding.id, "forgotten": places})
    output.say(f"forgot {finding_title(saved.finding)} {' and '.join(places)}")
    return ExitCode.CLEAN


async def _replay(name: str, redis: str | None, output: Output) -> int:
    saved = await find(name, redis)
    output.note(f"replaying {finding_title(saved.finding)}")
    verdict = await fuzz_process.replay(saved)
    if verdict["verdict"] == "error":
        raise FuzzfarmError(f"{saved.finding.target} cannot be replayed: {verdict['error']}")
    output.record({"finding": saved.finding, **verdict})
    fixed = verdict["verdict"] == "fixed"
    output.say(_verdict_text(verdict), "bold green" if fixed else "bold red")
    if not fixed:
        show_finding(output, _as_it_fails_now(saved.finding, verdict))
    return ExitCode.CLEAN if fixed else ExitCode.FAILURES


def _verdict_text(verdict: dict[str, Any]) -> str:
    text = f"{VERDICTS[verdict['verdict']]}: failed {verdict['failures']} of {verdict['runs']} times"
    return text if verdict["same"] or not verdict["failures"] else f"{text}, in another way than before"


def _as_it_fails_now(finding: Finding, verdict: dict[str, Any]) -> Finding:
    failure = verdict["failure"]
    return replace(
        finding,
        type=failure["type"],
        message=failure["message"],
        location=failure["location"],
        example=failure["example"] or finding.example,
    )
