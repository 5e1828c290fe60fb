"""Where findings are looked for: in this folder, and on the farm where one was named."""

from __future__ import annotations

from collections.abc import Sequence

from fuzzfarm.batch import Batch
from fuzzfarm.cli import finding_files
from fuzzfarm.cli.failures import UsageError
from fuzzfarm.cli.finding_files import SavedFinding
from fuzzfarm.cli.options import farm_is_given
from fuzzfarm.farm import Farm
from fuzzfarm_shared.errors import FarmUnreachableError
from fuzzfarm_shared.outcomes import Finding, FuzzResult


async def find(name: str, redis: str | None) -> SavedFinding:
    """Return the finding with this id, beginning of an id, or file; the farm knows more of it than a file here.

    Raises:
        UsageError: when there is none, or several.
        FarmUnreachableError: when it is not here and the farm does not answer.
    """
    saved = finding_files.named(name)
    if farm_is_given(redis):
        try:
            async with Farm.connect(redis) as farm:
                found = await farm.findings_named(name if saved is None else saved.finding.id)
        except FarmUnreachableError:
            if saved is None:
                raise
            return saved
        if len(found) > 1:
            raise UsageError(f"{name!r} stands for {len(found)} findings ({_some_ids(found)}): give more of the id")
        if found:
            return SavedFinding(found[0], None if saved is None else saved.root)
    if saved is None:
        place = f"{finding_files.FOLDER} and on the farm" if farm_is_given(redis) else str(finding_files.FOLDER)
        raise UsageError(f"there is no finding {name!r} in {place}: list them with `fuzzfarm findings`")
    return saved


def _some_ids(findings: Sequence[Finding]) -> str:
    ids = sorted(finding.id for finding in findings)
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")


async def of_batch(batch: Batch) -> list[Finding]:
    """Return the findings of the outcomes that a batch has by now; raises as `Batch.results`."""
    aggregate = await batch.results()
    results = [value for value in aggregate.results.values() if isinstance(value, FuzzResult)]
    return [finding for result in results for finding in result.findings]


async def everywhere(redis: str | None) -> list[SavedFinding]:
    """Return all findings of this folder and of the farm, those seen last first; raises as the farm does."""
    found = {saved.finding.id: saved for saved in finding_files.load_all()}
    if farm_is_given(redis):
        async with Farm.connect(redis) as farm:
            for finding in await farm.findings():
                saved = found.get(finding.id)
                found[finding.id] = SavedFinding(finding, None if saved is None else saved.root)
    return sorted(found.values(), key=lambda saved: (-saved.finding.last_seen, saved.finding.id))
