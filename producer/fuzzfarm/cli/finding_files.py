"""Findings as files: they outlive the farm that made them, and `fuzzfarm replay` reads them."""

from __future__ import annotations

import base64
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzzfarm.cli.failures import UsageError
from fuzzfarm.cli.plain_data import finding_record, to_json
from fuzzfarm_shared.outcomes import ErrorKind, Finding

FOLDER = Path(".fuzzfarm") / "findings"
"""In the current directory, as `.hypothesis` and `.pytest_cache` are."""

INPUT = ".input"
"""Ends the name of the file beside a finding that holds what its command was given."""


@dataclass(frozen=True, slots=True)
class SavedFinding:
    """A finding, and what its replay needs beyond it.

    Attributes:
        finding: the finding.
        root: folder that the target's module is imported from, or None when it is on the module path.
    """

    finding: Finding
    root: str | None = None


def save(saved: SavedFinding, folder: Path = FOLDER) -> Path:
    """Write a finding, and what its command was given, replacing an earlier sighting; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{saved.finding.id}.json"
    record = {**finding_record(saved.finding), "root": saved.root}
    half_written = path.with_suffix(".part")
    half_written.write_text(to_json(record) + "\n")
    half_written.replace(path)
    if saved.finding.input is not None:
        path.with_suffix(INPUT).write_bytes(saved.finding.input)
    return path


def load(path: Path) -> SavedFinding:
    """Return the finding in a file.

    Raises:
        UsageError: for a file that cannot be read, or holds no finding.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        values = {field.name: record[field.name] for field in dataclasses.fields(Finding) if field.name in record}
        values["choices"] = base64.b64decode(values["choices"])
        values["kind"] = ErrorKind(values["kind"])
        values.update({name: tuple(values.get(name, ())) for name in ("hosts", "command", "crash_exit_codes")})
        if values.get("input") is not None:
            values["input"] = base64.b64decode(values["input"])
        return SavedFinding(Finding(**values), record.get("root"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise UsageError(f"{path} holds no finding ({exc}): give a file that `fuzzfarm fuzz` wrote") from exc


def load_all(folder: Path = FOLDER) -> list[SavedFinding]:
    """Return all saved findings, the one seen last first."""
    found = [load(path) for path in folder.glob("*.json")]
    return sorted(found, key=lambda saved: -saved.finding.last_seen)


def remove(identifier: str, folder: Path = FOLDER) -> bool:
    """Delete the files of a finding and return whether there was one."""
    path = folder / f"{identifier}.json"
    known = path.is_file()
    for file in (path, path.with_suffix(INPUT)):
        file.unlink(missing_ok=True)
    return known


def named(name: str, folder: Path = FOLDER) -> SavedFinding | None:
    """Return the saved finding with this file name, id, or beginning of an id; None when there is none.

    Raises:
        UsageError: when several ids begin so, or the file holds no finding.
    """
    if name.endswith(".json") and Path(name).is_file():
        return load(Path(name))
    paths = [path for path in folder.glob("*.json") if path.stem.startswith(name)]
    exact = [path for path in paths if path.stem == name]
    if len(paths) > 1 and not exact:
        ids = ", ".join(sorted(path.stem for path in paths)[:3])
        raise UsageError(f"{name!r} stands for {len(paths)} findings ({ids}, ...): give more of the id")
    return load((exact or paths)[0]) if paths else None
