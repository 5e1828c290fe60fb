"""Reproducers: `python -m fuzzfarm_worker.fuzzing.reproducers` writes what reproduces findings without fuzzfarm.

On stdin one finding a line, as JSON with the fields of a `Finding`, its `choices` in base64. On stdout one JSON object
for each:

    id           of the finding
    script       Python source that fails in the same way, or null
    decorator    `@reproduce_failure(...)` for a Hypothesis test, or null
    saved        whether the example is in the database now, so that the test runner of the test runs it first
    reasons      why there is no script, no decorator, or nothing was saved; may be empty

With --save-database PLACE examples of Hypothesis tests are added to Hypothesis' own database there: a folder such as
.hypothesis/examples, or the address of a Redis server. With --below FOLDER only those of test files in that folder.
Exit code 0.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hypothesis.database import ExampleDatabase
from redis.exceptions import RedisError

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_worker.fuzzing.generation import open_database, reproduce_line, save_choices
from fuzzfarm_worker.fuzzing.scripts import command_script, script_of
from fuzzfarm_worker.fuzzing.subject import Subject, load
from fuzzfarm_worker.fuzzing.suite import enter_suite_of
from fuzzfarm_worker.fuzzing.words import strategy_word

HOME = ".hypothesis"
"""The folder that Hypothesis makes, with a .gitignore; where we are first, it is ours to write that."""


@dataclass(slots=True)
class Reproducers:
    """What reproduces a finding; see the module."""

    id: str
    script: str | None = None
    decorator: str | None = None
    saved: bool = False
    reasons: list[str] = field(default_factory=list)


def reproducers_of(finding: Mapping[str, Any], database: ExampleDatabase | None, below: Path | None) -> Reproducers:
    """Return what reproduces a finding, and save its example; the target is imported and not called.

    Args:
        finding: its fields.
        database: where to save its example, or None.
        below: save only the examples of tests whose file is in this folder; None: of every test.
    """
    found = Reproducers(str(finding.get("id", "")))
    try:
        if finding.get("command"):
            return _of_command(found, finding)
        choices = base64.b64decode(finding["choices"], validate=True)
        enter_suite_of(finding["target"])
        subject = load(finding["target"], strategy_word(finding["strategy"], finding.get("inputs")))
        title = f"{finding['type']} in {finding['target']}: finding {found.id} of fuzzfarm"
        found.script = script_of(subject, finding["example"], title)
        if found.script is None:
            found.reasons.append("no script: the text of its example is no Python source that makes it again")
        _for_hypothesis(found, subject, choices, finding["hypothesis"])
        if database is not None and found.decorator is not None and (below is None or _is_below(subject, below)):
            save_choices(database, subject.function, choices)
            found.saved = True
    except TargetError as exc:
        found.reasons.append(f"nothing can be made here: {' '.join(str(exc).split())}")
    except (OSError, RedisError) as exc:
        found.reasons.append(f"the example cannot be saved: {exc}")
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        found.reasons.append(f"this is no finding ({exc}): pass one as `fuzzfarm findings --json` prints it")
    return found


def _of_command(found: Reproducers, finding: Mapping[str, Any]) -> Reproducers:
    found.reasons.append("no decorator: its target is a command")
    if finding.get("input") is None:
        found.reasons.append("no script: what the command was given is not known, or is too long")
    else:
        title = f"{finding['type']} in {finding['target']}: finding {found.id} of fuzzfarm"
        given = base64.b64decode(finding["input"], validate=True)
        found.script = command_script(finding["command"], given, title)
    return found


def _for_hypothesis(found: Reproducers, subject: Subject, choices: bytes, version: str) -> None:
    if not subject.from_test:
        found.reasons.append("no decorator: its target is no Hypothesis test")
    elif not choices:
        found.reasons.append("no decorator: it is an example that the test itself lists, or its choices are not known")
    else:
        found.decorator = reproduce_line(choices, version)


def _is_below(subject: Subject, folder: Path) -> bool:
    file = getattr(sys.modules[subject.target.partition(":")[0]], "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(folder.resolve())


def _database(place: str) -> ExampleDatabase:
    folder = Path(place).parent
    if folder.name == HOME and not folder.exists():
        folder.mkdir(parents=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return open_database(place)


def main() -> int:
    """Write the reproducers of the findings on stdin; what imported modules print goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m fuzzfarm_worker.fuzzing.reproducers", description=__doc__)
    parser.add_argument("--save-database", metavar="PLACE", help="folder or Redis address of the example database")
    parser.add_argument("--below", metavar="FOLDER", type=Path, help="save only examples of tests in this folder")
    arguments = parser.parse_args()
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    database = None if arguments.save_database is None else _database(arguments.save_database)
    with output:
        for line in sys.stdin:
            found = reproducers_of(json.loads(line), database, arguments.below)
            output.write(json.dumps(asdict(found)) + "\n")
            output.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
