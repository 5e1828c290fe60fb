"""Commands about what was found: findings and replay."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from fuzzfarm.batch import Batch
from fuzzfarm.cli import finding_files
from fuzzfarm.cli.failures import ExitCode, UsageError
from fuzzfarm.cli.finding_files import SavedFinding
from fuzzfarm.cli.fuzz_process import replay as replay_process
from fuzzfarm.cli.options import Json, Redis, farm_is_given, run
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.views import count, finding_title, show_finding
from fuzzfarm.farm import Farm
from fuzzfarm_shared.errors import BatchNotSealedError, FuzzfarmError
from fuzzfarm_shared.outcomes import Finding, FuzzResult

BATCHES_SEARCHED = 100
"""The newest batches of a farm; older findings are still found by the key of their batch."""

OptionalKey = Annotated[
    str | None,
    typer.Argument(metavar="[KEY]", help="Key of a batch; without it, those saved here and of recent batches.",
                   show_default=False),
]  # fmt: skip
FindingName = Annotated[
    str, typer.Argument(metavar="FINDING", help="Id, beginning of an id, or file of a finding.", show_default=False)
]

VERDICTS = {"fixed": "FIXED", "still_failing": "STILL FAILING", "flaky": "FLAKY"}


def findings(key: OptionalKey = None, redis: Redis = None, as_json: Json = False) -> None:
    """Show findings: saved ones, or those of a batch.

    Without a key: those saved in this folder and, with a farm, those of its recent batches.
    """
    run(_findings(key, redis, Output(as_json)))


def replay(finding: FindingName, redis: Redis = None, as_json: Json = False) -> None:
    """Run the example of a finding again.

    The answer is FIXED (exit code 0), STILL FAILING or FLAKY (1).
    """
    run(_replay(finding, redis, Output(as_json)))


async def _findings(key: str | None, redis: str | None, output: Output) -> int:
    saved = {} if key is not None else {item.finding.id: item for item in finding_files.load_all()}
    if key is not None or farm_is_given(redis):
        for finding in await _on_farm(key, redis):
            saved.setdefault(finding.id, SavedFinding(finding))
    for item in saved.values():
        output.record(item.finding)
        finding_files.save(item)
        show_finding(output, item.finding)
    output.say(count(len(saved), "finding"))
    return ExitCode.FAILURES if saved else ExitCode.CLEAN


async def _on_farm(key: str | None, redis: str | None) -> list[Finding]:
    """Return each finding of a batch, or of the recent batches that ran examples."""
    async with Farm.connect(redis) as farm:
        if key is not None:
            return await _of_batch(farm.batch(key))
        batches = [status.key for status in await farm.batches(BATCHES_SEARCHED) if status.examples_done]
        return [finding for batch in batches for finding in await _of_batch(farm.batch(batch), skip_unsealed=True)]


async def _of_batch(batch: Batch, *, skip_unsealed: bool = False) -> list[Finding]:
    try:
        aggregate = await batch.results()
    except BatchNotSealedError:
        if skip_unsealed:
            return []
        raise
    results = [value for value in aggregate.results.values() if isinstance(value, FuzzResult)]
    return [finding for result in results for finding in result.findings]


async def _replay(name: str, redis: str | None, output: Output) -> int:
    saved = await _find(name, redis)
    output.note(f"replaying {finding_title(saved.finding)}")
    verdict = await replay_process(saved)
    if verdict["verdict"] == "error":
        raise FuzzfarmError(f"{saved.finding.target} cannot be replayed: {verdict['error']}")
    output.record({"finding": saved.finding, **verdict})
    fixed = verdict["verdict"] == "fixed"
    output.say(_verdict_text(verdict), "bold green" if fixed else "bold red")
    if not fixed:
        show_finding(output, _as_it_fails_now(saved.finding, verdict))
    return ExitCode.CLEAN if fixed else ExitCode.FAILURES


async def _find(name: str, redis: str | None) -> SavedFinding:
    saved = finding_files.named(name)
    if saved is not None:
        return saved
    if farm_is_given(redis):
        matches = {finding.id: finding for finding in await _on_farm(None, redis) if finding.id.startswith(name)}
        if len(matches) > 1:
            raise UsageError(f"{name!r} stands for {len(matches)} findings of this farm: give more of the id")
        if matches:
            return SavedFinding(next(iter(matches.values())))
    raise UsageError(f"there is no finding {name!r} in {finding_files.FOLDER}: list them with `fuzzfarm findings`")


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
