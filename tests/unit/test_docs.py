"""What the documentation says is so: commands, tables, links, names of settings and of dependencies."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from fuzzfarm_shared.operations import CallOperation, FuzzOperation, Operation, ProcessLimits, SubprocessJob
from fuzzfarm_shared.settings import FarmSettings, ProducerSettings, WorkerHostSettings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SETTINGS_OF = {"everywhere": FarmSettings, "producers": ProducerSettings, "workers": WorkerHostSettings}

OTHER_VARIABLES = {
    "FUZZFARM_DEBUG",
    "FUZZFARM_REDIS_PASSWORD",
    "FUZZFARM_REDIS_MEMORY",
    "FUZZFARM_BIND",
    "FUZZFARM_CODE",
    "FUZZFARM_CHAOS_RUNS",
    "FUZZFARM_SOAK",
}
"""Variables that are no settings: of the command line, of docker-compose.yml, and of the tests."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def section(page: Path, heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"{page.name} has no section {heading!r}"
    return found[1]


def shown_default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "(host name)" if field.default_factory.__name__ == "gethostname" else "(empty)"
    if field.default in {None, ""}:
        return "(none)"
    if isinstance(field.default, tuple):
        return "(none)"
    return f"`{field.default}`"


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def settings_rows() -> Iterator[str]:
    seen: set[str] = set()
    for who, settings in SETTINGS_OF.items():
        for name, field in settings.model_fields.items():
            if name not in seen:
                seen.add(name)
                yield row(f"`FUZZFARM_{name.upper()}`", shown_default(field), who, str(field.description))


def field_rows(model: type[BaseModel]) -> Iterator[str]:
    inherited = Operation.model_fields if model is not Operation and issubclass(model, Operation) else {}
    for name, field in model.model_fields.items():
        if name in inherited and repr(inherited[name]) == repr(field):
            continue
        default = "required" if field.is_required() else shown_default(field)
        yield row(f"`{name}`", default, str(field.description))


def assert_holds(page: Path, rows: Iterator[str]) -> None:
    text, expected = page.read_text(), list(rows)
    missing = [line for line in expected if line not in text]
    assert not missing, f"{page.name} lacks these lines of its table:\n" + "\n".join(missing)


def test_the_quick_start_is_two_commands_of_one_line() -> None:
    commands = re.findall(r"^```bash\n(.*?)^```$", section(README, "Quick start"), re.DOTALL | re.MULTILINE)
    assert len(commands) == 2
    assert all(command.count("\n") == 1 for command in commands)
    assert len(blocks(README, "bash")) == 2


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.skipif(sys.platform == "win32", reason="bash and awk")
def test_ci_runs_the_commands_of_the_readme(number: int) -> None:
    done = subprocess.run([ROOT / ".ci" / "readme-command", str(number)], capture_output=True, text=True, check=True)
    assert done.stdout == blocks(README, "bash")[number - 1]


def test_the_readme_stays_under_two_screens() -> None:
    (program,) = blocks(README, "python")
    assert len(README.read_text().splitlines()) <= 90
    assert len(program.splitlines()) <= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = [target for target in links(page) if not resolves(page, target)]
    assert not broken


def links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def resolves(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        return False
    return not anchor or anchor in {slug(title) for title in re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)}


def slug(title: str) -> str:
    """As GitHub makes anchors of headings."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_page_can_be_reached_from_the_readme() -> None:
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert pages <= set(links(README))


def test_the_settings_table_is_complete() -> None:
    page = ROOT / "docs" / "deployment.md"
    assert re.findall(r"^\| `.*", section(page, "Settings"), re.MULTILINE) == list(settings_rows())


@pytest.mark.parametrize("model", [Operation, CallOperation, SubprocessJob, ProcessLimits, FuzzOperation])
def test_the_tables_of_operations_are_complete(model: type[BaseModel]) -> None:
    assert_holds(ROOT / "docs" / "operations.md", field_rows(model))


def test_only_settings_that_exist_are_named() -> None:
    known = {f"FUZZFARM_{name.upper()}" for settings in SETTINGS_OF.values() for name in settings.model_fields}
    files = [*PAGES, ROOT / "docker-compose.yml", ROOT / "Dockerfile"]
    named = {(file.name, name) for file in files for name in re.findall(r"FUZZFARM_[A-Z_]*[A-Z]", file.read_text())}
    assert {(file, name) for file, name in named if name not in known | OTHER_VARIABLES} == set()


def test_a_default_that_is_a_secret_is_never_shown() -> None:
    fields = [field for settings in SETTINGS_OF.values() for field in settings.model_fields.values()]
    assert not any(isinstance(field.default, SecretStr) for field in fields)


def test_every_dependency_is_explained() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["dev"], "hatchling"]
    names = {re.split(r"[\[<>=;~! ]", requirement)[0] for requirement in required}
    explained = set(re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE))
    assert explained == names


def test_every_promise_names_tests_that_exist() -> None:
    named = re.findall(r"`(\w[\w/]*\.py)::(\w+)`", (ROOT / "docs" / "guarantees.md").read_text())
    assert len(named) >= 7
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{file} has no {name}"
