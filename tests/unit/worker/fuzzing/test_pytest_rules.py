"""What is collected is what pytest would collect: pytest itself says what that is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from shard_runs import operation, run
from test_collect import collect

from fuzzfarm_shared.errors import TargetError

GIVEN = "from hypothesis import given, strategies as st\nimport pytest, sys, unittest\n"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_named(name: str) -> str:
    return f"@given(st.integers())\ndef {name}(n): pass\n"


test_named.__test__ = False  # type: ignore[attr-defined]


def collected_by_pytest(folder: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "tests"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=folder,
    )
    ids = re.findall(r"^(\S+\.py)::(\S+)$", done.stdout, re.MULTILINE)
    return {f"{Path(file).stem}:{name.partition('[')[0].replace('::', '.')}" for file, name in ids}


CONFIGURATIONS = {
    "pytest.ini": "[pytest]\npython_files = check_*.py\npython_classes = Check *Suite\npython_functions = check it_*\n",
    "setup.cfg": "[tool:pytest]\npython_files =\n    check_*.py\npython_classes = Check *Suite\n"
    "python_functions = check it_*\n",
    "tox.ini": "[pytest]\npython_files = check_*.py\npython_classes = Check *Suite\npython_functions = check it_*\n",
    "pyproject.toml": '[tool.pytest.ini_options]\npython_files = "check_*.py"\n'
    'python_classes = ["Check", "*Suite"]\npython_functions = ["check", "it_*"]\n',
}

NAMES = {
    "test_one.py": test_named("test_a"),
    "check_two.py": test_named("test_b")
    + test_named("check_c")
    + test_named("it_d")
    + test_named("iterates")
    + "class CheckE:\n"
    + "".join(f"    {line}\n" for line in test_named("check_f").replace("(n)", "(self, n)").splitlines())
    + "class MySuite(CheckE): pass\nclass TestG(CheckE): pass\n",
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_names_of_tests_come_from_the_configuration_of_pytest(tmp_path: Path, name: str) -> None:
    write(tmp_path, {f"tests/{file}": GIVEN + text for file, text in NAMES.items()})
    write(tmp_path, {name: CONFIGURATIONS[name]})
    _, lines = collect("tests", cwd=tmp_path)
    found = {line["target"] for line in lines if "target" in line}
    assert found == collected_by_pytest(tmp_path)
    assert found == {"check_two:check_c", "check_two:it_d", "check_two:CheckE.check_f", "check_two:MySuite.check_f"}
    skipped = {line["skipped"]: line["reason"] for line in lines if "skipped" in line}
    assert "python_functions (check, it_*)" in skipped["check_two:test_b"]


def test_without_a_configuration_the_defaults_of_pytest_hold(tmp_path: Path) -> None:
    files = {
        "tests/test_one.py": test_named("test_a") + test_named("testb") + test_named("other"),
        "tests/inner/two_test.py": test_named("test_c"),
        "tests/other.py": test_named("test_d"),
        "tests/build/test_four.py": test_named("test_e"),
        "tests/.hidden/test_five.py": test_named("test_f"),
        "tests/environment/test_six.py": test_named("test_g"),
        "tests/test_cases.py": "class Anything(unittest.TestCase):\n"
        "    @given(st.integers())\n    def test_h(self, n): pass\n"
        "    @given(st.integers())\n    def other(self, n): pass\n"
        "class TestMade:\n    def __init__(self): pass\n"
        "    @given(st.integers())\n    def test_i(self, n): pass\n"
        "class TestOff(unittest.TestCase):\n    __test__ = False\n"
        "    @given(st.integers())\n    def test_j(self, n): pass\n",
    }
    write(tmp_path, {name: GIVEN + text for name, text in files.items()})
    write(tmp_path, {"tests/environment/pyvenv.cfg": "", "pyproject.toml": ""})
    _, lines = collect("tests", cwd=tmp_path)
    found = {line["target"] for line in lines if "target" in line}
    assert found == collected_by_pytest(tmp_path)
    assert found == {"test_one:test_a", "test_one:testb", "two_test:test_c", "test_cases:Anything.test_h"}


REASONS = """
@pytest.fixture
def resource(): return 1

@given(n=st.integers())
def test_fixture(resource, tmp_path, n): pass

@pytest.mark.usefixtures("resource")
@given(n=st.integers())
def test_used(n): pass

@pytest.mark.parametrize("a, b", [(1, 2)])
@given(n=st.integers())
def test_parametrized(a, b, n): pass

@pytest.mark.skip(reason="not today")
@given(n=st.integers())
def test_skip(n): pass

@pytest.mark.skipif(sys.version_info > (3,), reason="Python 2 only")
@given(n=st.integers())
def test_skipif(n): pass

@pytest.mark.skipif("sys.version_info < (3,)", reason="never")
@given(n=st.integers())
def test_runs(n): pass

@given(n=st.integers())
@pytest.mark.xfail(reason="known")
def test_xfail(n): pass

@pytest.mark.skip("the whole class")
class TestSkipped:
    @given(n=st.integers())
    def test_a(self, n): pass

class TestParametrized:
    pytestmark = pytest.mark.parametrize("x", [1])

    @given(n=st.integers())
    def test_b(self, x, n): pass

    class TestInner:
        @given(n=st.integers())
        def test_c(self, n): pass

class TestAuto:
    @pytest.fixture(autouse=True)
    def connect(self): yield

    @given(n=st.integers())
    def test_d(self, n): pass

class TestStatic:
    @staticmethod
    @given(n=st.integers())
    def test_e(n): pass

@unittest.skip("unittest says so")
class Cases(unittest.TestCase):
    @given(n=st.integers())
    def test_f(self, n): pass
"""


def test_what_is_skipped_has_a_reason_that_names_the_cause(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "tests/test_r.py": GIVEN + REASONS,
            "tests/test_off.py": "import pytest\npytest.skip('no', allow_module_level=True)",
        },
    )
    _, lines = collect("tests", cwd=tmp_path)
    assert {line["target"] for line in lines if "target" in line} == {"test_r:test_runs", "test_r:TestStatic.test_e"}
    assert {line["skipped"]: line["reason"] for line in lines if "skipped" in line} == {
        "test_off": "skips itself: no",
        "test_r:test_fixture": "needs the fixtures resource, tmp_path",
        "test_r:test_used": "needs the fixture resource",
        "test_r:test_parametrized": "is parametrized over a, b",
        "test_r:test_skip": "is marked skip: not today",
        "test_r:test_skipif": "is marked skipif: Python 2 only",
        "test_r:test_xfail": "is marked xfail: known",
        "test_r:TestSkipped.test_a": "is marked skip: the whole class",
        "test_r:TestParametrized.test_b": "is parametrized over x",
        "test_r:TestParametrized.TestInner": "is a class inside a class: move it to the top level of its module",
        "test_r:TestAuto.test_d": "needs the fixture connect of TestAuto, which is autouse",
        "test_r:Cases.test_f": "is skipped: unittest says so",
    }


def test_conftest_files_extend_the_module_path_and_their_autouse_fixtures_are_named(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pytest.ini": "[pytest]\npythonpath = src\n",
            "conftest.py": "collect_ignore = ['tests/test_ignored.py']\n",
            "at_root.py": "",
            "src/in_src.py": "",
            "tests/conftest.py": "import sys, pathlib\nsys.path.append(str(pathlib.Path(__file__).parent / 'lib'))\n",
            "tests/lib/in_lib.py": "",
            "tests/auto/conftest.py": "import pytest\n@pytest.fixture(autouse=True)\ndef server(): yield\n",
            "tests/auto/test_auto.py": GIVEN + test_named("test_a"),
            "tests/test_paths.py": GIVEN + "import at_root, in_src, in_lib\n" + test_named("test_b"),
            "tests/test_ignored.py": GIVEN + test_named("test_c"),
            "tests/broken/conftest.py": "import no_such_thing",
            "tests/broken/test_broken.py": GIVEN + test_named("test_d"),
        },
    )
    _, lines = collect("tests", cwd=tmp_path)
    assert [line["target"] for line in lines if "target" in line] == ["test_paths:test_b"]
    skipped = {line["skipped"]: line["reason"] for line in lines if "skipped" in line}
    assert skipped.pop("test_broken").startswith("its conftest.py cannot be imported: ModuleNotFoundError")
    assert skipped == {
        "test_auto:test_a": "needs the fixture server of tests/auto/conftest.py, which is autouse",
        "test_ignored": "is ignored by conftest.py",
    }


def test_a_child_imports_what_pytest_would_import_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        {
            "pytest.ini": "[pytest]\npythonpath = src\n",
            "src/in_src_of_child.py": "LIMIT = 5",
            "tests/conftest.py": "import sys, pathlib\nsys.path.append(str(pathlib.Path(__file__).parent / 'lib'))\n",
            "tests/lib/in_lib_of_child.py": "",
            "tests/test_of_child.py": GIVEN
            + "import in_src_of_child, in_lib_of_child\n"
            + test_named("test_a")
            + "def setup_module(module): module.limit = in_src_of_child.LIMIT\n"
            "@given(st.integers(0, 9))\ndef test_b(n): assert n < limit\n",
        },
    )
    monkeypatch.syspath_prepend(tmp_path / "tests")
    assert run(operation("test_of_child:test_a"), 0, 10).examples == 10
    [finding] = run(operation("test_of_child:test_b"), 0, 50).findings
    assert finding.example == "test_b(n=5)"


def test_a_broken_conftest_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"conftest.py": "import no_such_thing", "test_of_broken.py": GIVEN + test_named("test_a")})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TargetError, match=r"a conftest\.py of 'test_of_broken:test_a' cannot be imported: Module"):
        run(operation("test_of_broken:test_a"), 0, 10)


def test_an_imported_test_is_one_target_of_its_own_module(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "tests/test_base.py": GIVEN + test_named("test_a"),
            "tests/test_more.py": "from test_base import test_a\n",
            "tests/one/test_same.py": GIVEN + test_named("test_b"),
            "tests/two/test_same.py": GIVEN + test_named("test_c"),
        },
    )
    _, lines = collect("tests", cwd=tmp_path)
    assert [line["target"] for line in lines if "target" in line] == ["test_same:test_b", "test_base:test_a"]
    [skipped] = [line for line in lines if "skipped" in line]
    assert "another module of this name was imported" in skipped["reason"]


def test_what_is_named_itself_is_not_judged_by_its_marks(tmp_path: Path) -> None:
    write(tmp_path, {"test_r.py": GIVEN + REASONS})
    code, [line] = collect("test_r.py::test_xfail", cwd=tmp_path)
    assert (code, line["target"]) == (0, "test_r:test_xfail")
    code, [line] = collect("test_r.py::TestSkipped", cwd=tmp_path)
    assert (code, line["reason"]) == (2, "is marked skip: the whole class")
