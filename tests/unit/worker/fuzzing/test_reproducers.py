import ast
import base64
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import planted_bugs
import pytest
from shard_runs import operation, run, smallest
from sightings import finding

from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import Finding

Done = subprocess.CompletedProcess[str]
HERE = str(Path(__file__).parent)
CLEAN = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONPATH")}
"""On CI Hypothesis has no database."""


def as_json(found: Finding) -> dict[str, Any]:
    given = None if found.input is None else base64.b64encode(found.input).decode()
    return {**dataclasses.asdict(found), "choices": base64.b64encode(found.choices).decode(), "input": given}


def python(*words: str, cwd: Path | None = None, text: str = "", path: str = HERE) -> Done:
    return subprocess.run(
        [sys.executable, *words],
        input=text,
        cwd=cwd,
        env={**CLEAN, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def reproduced(found: object, *options: str, path: str = HERE) -> dict[str, Any]:
    lines = json.dumps(as_json(found) if isinstance(found, Finding) else found)
    done = python("-m", "fuzzfarm_worker.fuzzing.reproducers", *options, text=lines, path=path)
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("target", "strategy", "fails_with"),
    [
        ("fails_above_a_thousand", None, "AssertionError: too big"),
        ("takes_a_dataclass", None, "AssertionError: far"),
        ("awaits", None, "LookupError: 101"),
        ("TestMethods.test_limit", None, "AssertionError"),
        ("Cases.test_limit", None, "AssertionError: 1001 not less than or equal to 1000"),
        ("untyped_pair", "fuzzing_subjects:pairs", "AssertionError"),
        ("recurses", None, "RecursionError"),
        ("reproducer_subjects:takes_odd_values", None, "AssertionError: odd"),
        ("stateful_subjects:TestShelf", None, "AssertionError: it sags"),
    ],
)
def test_a_script_fails_as_the_finding_did(target: str, strategy: str | None, fails_with: str, tmp_path: Path) -> None:
    found = smallest(operation(target, strategy=strategy))
    script = tmp_path / "it.py"
    source = reproduced(found)["script"]
    folders = ast.literal_eval(source.partition("sys.path[:0] = ")[2].partition("\n")[0])
    assert HERE in folders
    assert len(set(folders)) == len(folders)
    script.write_text(source)
    done = python(str(script), cwd=tmp_path, path="")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(fails_with)


def test_a_finding_that_is_no_source_says_so_and_keeps_the_others() -> None:
    findings = {found.type: found for found in run(operation("test_with_everything")).findings}
    interactive = reproduced(findings["AssertionError"])
    assert interactive["script"] is None
    assert interactive["reasons"] == [
        "no script: the text of its example is no Python source that makes it again",
    ]
    assert interactive["decorator"].startswith("@reproduce_failure('")
    listed = reproduced(findings["AttributeError"])
    assert listed["script"] is not None
    assert listed["decorator"] is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target": "no_such_module:f"}, "nothing can be made here: cannot import module 'no_such_module'"),
        ({"choices": "%%%"}, "this is no finding"),
        ({"choices": "/////w=="}, "are no encoded choices"),
        ({"example": "test_below_a_thousand(number="}, "no script"),
        ({"example": "test_below_a_thousand(number=<object>)"}, "no script"),
        ({"example": "test_below_a_thousand(number=Unknown(3))"}, "no script"),
        ({"example": "test_below_a_thousand(number=int('x'))"}, "no script"),
    ],
)
def test_what_cannot_be_made_says_why(changes: dict[str, Any], says: str) -> None:
    found_by_hand = finding(target="reproducer_subjects:test_below_a_thousand", example="test_below_a_thousand(1000)")
    made = reproduced({**as_json(found_by_hand), **changes})
    assert (made["script"] is None) == (changes != {"choices": "/////w=="})
    assert any(says in reason for reason in made["reasons"])


TEST_FILE = """
from hypothesis import given, settings, strategies as st

class TestNumbers:
    @given(st.integers(), st.text())
    @settings(max_examples=1)
    def test_small(self, number, text):
        with open("seen", "a") as seen:
            print((number, text), file=seen)
        assert number < 1000 or not text
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "test_it.py").write_text(TEST_FILE)
    return tmp_path


def pytest_in(project: Path) -> Done:
    (project / "seen").unlink(missing_ok=True)
    return python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py", cwd=project, path="")


def found_in(project: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> Finding:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.chdir(project)
    found = smallest(operation(target))
    (project / "seen").unlink(missing_ok=True)
    return found


@pytest.mark.parametrize("place", [".hypothesis/examples", "elsewhere"])
def test_plain_pytest_runs_a_saved_example_first(project: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    found = found_in(project, monkeypatch, "test_it:TestNumbers.test_small")
    assert pytest_in(project).returncode == 0, "one example does not find it"
    made = reproduced(found, "--save-database", str(project / place), path=str(project))
    assert made["saved"]
    if place == "elsewhere":
        (project / ".hypothesis").mkdir(exist_ok=True)
        (project / place).rename(project / ".hypothesis" / "examples")
    done = pytest_in(project)
    assert done.returncode == 1
    assert (project / "seen").read_text().splitlines()[0] == "(1000, '0')"
    assert "1 failed" in done.stdout


def test_a_database_that_we_make_is_not_committed_by_accident(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = found_in(project, monkeypatch, "test_it:TestNumbers.test_small")
    assert not (project / ".hypothesis").exists()
    reproduced(found, "--save-database", str(project / ".hypothesis" / "examples"), path=str(project))
    assert (project / ".hypothesis" / ".gitignore").read_text() == "*\n"


def test_only_tests_in_the_folder_that_was_named_are_saved(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = found_in(project, monkeypatch, "test_it:TestNumbers.test_small")
    place = str(tmp_path / "database")
    other = tmp_path / "other"
    other.mkdir()
    assert not reproduced(found, "--save-database", place, "--below", str(other), path=str(project))["saved"]
    assert reproduced(found, "--save-database", place, "--below", str(project), path=str(project))["saved"]


def test_the_decorator_makes_plain_pytest_run_only_that_example(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = found_in(project, monkeypatch, "test_it:TestNumbers.test_small")
    decorator = reproduced(found, path=str(project))["decorator"]
    source = TEST_FILE.replace("    @given", f"    {decorator}\n    @given").replace(
        "import given,", "import given, reproduce_failure,"
    )
    (project / "test_it.py").write_text(source)
    assert pytest_in(project).returncode == 1
    assert (project / "seen").read_text().splitlines() == ["(1000, '0')"]


def test_a_script_finds_what_the_configuration_of_pytest_puts_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("src", "tests", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = src\n")
    (tmp_path / "src" / "shop.py").write_text("LIMIT = 1000\n")
    source = TEST_FILE.replace("1000", "LIMIT").replace("class", "from shop import LIMIT\n\nclass")
    (tmp_path / "tests" / "test_it.py").write_text(source)
    (tmp_path / "tests" / "conftest.py").write_text("import shop\n")
    monkeypatch.syspath_prepend(str(tmp_path / "tests"))
    monkeypatch.chdir(tmp_path)
    found = smallest(operation("test_it:TestNumbers.test_small"))
    script = tmp_path / "elsewhere" / "it.py"
    script.write_text(reproduced(found, path=str(tmp_path / "tests"))["script"])
    done = python(str(script), cwd=tmp_path / "elsewhere", path="")
    assert done.stderr.splitlines()[-1] == "AssertionError"
    assert (tmp_path / "elsewhere" / "seen").read_text() == "(1000, '0')\n"


MACHINE_FILE = """
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

class Shelf(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.books = []

    @rule(number=st.integers(0, 1000))
    def put(self, number):
        with open("seen", "a") as seen:
            print(number, file=seen)
        self.books.append(number)
        assert sum(self.books) < 1500

Shelf.TestCase.settings = settings(max_examples=1, stateful_step_count=2)
TestShelf = Shelf.TestCase
"""


def test_plain_pytest_runs_the_saved_steps_of_a_state_machine_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_it.py").write_text(MACHINE_FILE)
    found = found_in(tmp_path, monkeypatch, "test_it:TestShelf")
    assert pytest_in(tmp_path).returncode == 0, "one example does not find it"
    place = str(tmp_path / ".hypothesis" / "examples")
    assert reproduced(found, "--save-database", place, path=str(tmp_path))["saved"]
    assert pytest_in(tmp_path).returncode == 1
    first = (tmp_path / "seen").read_text().split()[:2]
    assert first == re.findall(r"number=(\d+)", found.example)


def test_a_database_on_a_server_holds_the_example(server_url: str, project: Path, monkeypatch: Any) -> None:
    from hypothesis.extra.redis import RedisExampleDatabase
    from redis import Redis

    from fuzzfarm_worker.fuzzing.generation import function_digest
    from fuzzfarm_worker.fuzzing.subject import load

    found = found_in(project, monkeypatch, "test_it:TestNumbers.test_small")
    assert reproduced(found, "--save-database", server_url, path=str(project))["saved"]
    inner = load("test_it:TestNumbers.test_small", None).function
    del sys.modules["test_it"]
    with Redis.from_url(server_url) as client:
        [saved] = RedisExampleDatabase(client).fetch(function_digest(inner))
    assert saved == found.choices


def test_a_server_that_does_not_answer_is_a_reason(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = found_in(project, monkeypatch, "test_it:TestNumbers.test_small")
    made = reproduced(found, "--save-database", "unix:///no/such/socket", path=str(project))
    assert not made["saved"]
    assert "the example cannot be saved: " in made["reasons"][-1]


@pytest.mark.parametrize("words", [["signal"], ["signal", "@@"]], ids=["stdin", "file"])
def test_the_script_of_a_command_runs_it_on_its_input(tmp_path: Path, words: list[str]) -> None:
    program = str(planted_bugs.program(tmp_path))
    [found] = run(FuzzOperation(command=[program, *words], inputs="regex:[a-z]{0,5}Z"), 0, 3).findings
    made = reproduced(as_json(found))
    assert made["reasons"] == ["no decorator: its target is a command"]
    assert "returncode=-11" in python("-c", made["script"]).stdout
    made = reproduced({**as_json(found), "input": None})
    assert (made["script"], "no script" in made["reasons"][1]) == (None, True)
