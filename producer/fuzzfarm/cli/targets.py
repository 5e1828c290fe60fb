"""The targets of a campaign: what the names that were typed stand for, and what was skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fuzzfarm.cli.failures import UsageError
from fuzzfarm.cli.fuzz_process import collect


@dataclass(frozen=True, slots=True)
class Targets:
    """What can be fuzzed.

    Attributes:
        roots: the targets, each with the folder that it is imported from, or None.
        skipped: what was found beside them, each with the reason to leave it out.
    """

    roots: dict[str, str | None]
    skipped: dict[str, str] = field(default_factory=dict)


async def find_targets(names: Sequence[str], *, supplied: bool) -> Targets:
    """Return the targets that names stand for.

    Args:
        names: targets, modules, files and folders, as they were typed.
        supplied: whether the inputs of all of them are told; targets may then be on workers only.

    Raises:
        UsageError: when there are none; the message says why.
    """
    if supplied and all(is_target(name) for name in names):
        return Targets(dict.fromkeys(names))
    lines = await collect(names, supplied=supplied)
    roots = {line["target"]: line["root"] for line in lines if "target" in line}
    skipped = {line["skipped"]: " ".join(line["reason"].split()) for line in lines if "skipped" in line}
    if not roots:
        reasons = [f"{name}: {reason}" for name, reason in skipped.items()]
        raise UsageError(f"nothing to fuzz: {'; '.join(reasons)}")
    return Targets(roots, skipped)


def is_target(name: str) -> bool:
    """Whether a name is that of a target, and not of a module, file or folder."""
    module = name.partition(":")[0]
    return module != name and "/" not in module and not module.endswith(".py")
