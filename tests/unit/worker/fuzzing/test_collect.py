import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def collect(*names: str, cwd: Path) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, "-m", "fuzzfarm_worker.fuzzing.collect", *names],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=cwd,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


TESTS = """
print("noise on stdout")
from hypothesis import given, strategies as st

@given(st.integers())
def test_a(n): pass

@given(st.integers())
def test_fixture(tmp_path, n): pass

class TestB:
    @given(st.integers())
    def test_c(self, n): pass

def test_plain(): pass

def fuzz_d(text: str): pass

def fuzz_e(text): pass

from hypothesis.stateful import RuleBasedStateMachine, rule

class Machine(RuleBasedStateMachine):
    @rule()
    def step(self): pass

TestMachine = Machine.TestCase
"""


def make_package(folder: Path) -> None:
    (folder / "tests" / "inner").mkdir(parents=True)
    (folder / "tests" / "inner" / "__init__.py").touch()
    (folder / "tests" / "inner" / "test_x.py").write_text(TESTS)
    (folder / "tests" / "test_broken.py").write_text("import no_such_thing")
    (folder / "tests" / "test_exit.py").write_text("raise SystemExit(3)")
    (folder / "tests" / "other.py").write_text("def fuzz_not_a_test(text: str): pass")


def test_a_folder_holds_hypothesis_tests_and_fuzz_functions(tmp_path: Path) -> None:
    make_package(tmp_path)
    code, lines = collect("tests", cwd=tmp_path)
    assert code == 0
    found = {line["target"]: line for line in lines if "target" in line}
    assert {name: line["kind"] for name, line in found.items()} == {
        "inner.test_x:test_a": "hypothesis",
        "inner.test_x:TestB.test_c": "hypothesis",
        "inner.test_x:TestMachine.runTest": "hypothesis",
        "inner.test_x:fuzz_d": "function",
    }
    assert {line["root"] for line in found.values()} == {str(tmp_path / "tests")}
    skipped = {line["skipped"]: line["reason"] for line in lines if "skipped" in line}
    assert "tmp_path" in skipped["inner.test_x:test_fixture"]
    assert "type hint" in skipped["inner.test_x:fuzz_e"]
    assert "no_such_thing" in skipped["test_broken"]
    assert "SystemExit" in skipped["test_exit"]
    assert len(lines) == 8


def test_one_target_can_be_named_in_each_way(tmp_path: Path) -> None:
    make_package(tmp_path)
    for name in (
        "tests/inner/test_x.py::test_a",
        "tests/inner/test_x.py:test_a",
        "tests/inner/test_x.py::TestB::test_c",
    ):
        code, [line] = collect(name, cwd=tmp_path)
        assert code == 0
        assert line["target"].startswith("inner.test_x:")
    code, [line] = collect("json:loads", cwd=tmp_path)
    assert (code, "no type hint" in line["reason"]) == (2, True)


def test_a_module_without_targets_says_how_to_name_one(tmp_path: Path) -> None:
    code, [line] = collect("json", cwd=tmp_path)
    assert code == 2
    assert "json:function" in line["reason"]


def test_a_missing_module_is_skipped_with_its_reason(tmp_path: Path) -> None:
    code, [line] = collect("no_such_module", cwd=tmp_path)
    assert (code, line["skipped"]) == (2, "no_such_module")
    assert "cannot be imported" in line["reason"]


def test_functions_need_no_hints_when_inputs_are_supplied(tmp_path: Path) -> None:
    make_package(tmp_path)
    code, [line] = collect("--supplied", "tests/inner/test_x.py:fuzz_e", cwd=tmp_path)
    assert (code, line["target"]) == (0, "inner.test_x:fuzz_e")
    code, [line] = collect("--supplied", "tests/inner/test_x.py::test_a", cwd=tmp_path)
    assert (code, "leave strategy and inputs out" in line["reason"]) == (2, True)
