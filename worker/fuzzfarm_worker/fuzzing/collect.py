"""Collection: `python -m fuzzfarm_worker.fuzzing.collect [--supplied] NAME...` prints what can be fuzzed.

A NAME is a module (`mymod`), a target (`mymod:parse`), a file (`tests/test_x.py`, also `tests/test_x.py::test_y`), or
a folder, in which files are taken as pytest takes them, and `fuzz_*.py`. Found are Hypothesis tests that pytest would
run, and functions named `fuzz_*`; each is one JSON object on a line:

    {"target": "test_x:test_y", "kind": "hypothesis", "file": "/src/tests/test_x.py", "root": "/src/tests"}
    {"skipped": "test_x:test_z", "reason": "..."}

`root` is the folder that workers need on their module path for the target, or null when it is on ours already.
With --supplied, inputs come from elsewhere: functions need no type hints, and Hypothesis tests take none.
Exit code 0 when something was found, 2 when nothing was.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.inputs import InputsKind
from fuzzfarm_worker.fuzzing.marks import Holders
from fuzzfarm_worker.fuzzing.module_tests import ModuleTests
from fuzzfarm_worker.fuzzing.subject import load
from fuzzfarm_worker.fuzzing.suite import Suite, add_to_path, file_of, place_of
from fuzzfarm_worker.fuzzing.words import strategy_word

NOTHING = "no file in it has Hypothesis tests or functions named fuzz_*"

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A module to look into.

    Attributes:
        module: its dotted name.
        only: the one attribute that was asked for, or "".
        file: where it is, or None for one that the module path finds.
        root: the folder it is imported from, where that is not on the module path.
        named: whether the user named it, and did not only name a folder that holds it.
    """

    module: str
    only: str = ""
    file: Path | None = None
    root: str | None = None
    named: bool = True


class Collector:
    """Looks into modules, which are imported here, and remembers what it has found.

    Args:
        strategy: the word that tells what makes the inputs of all; None: the targets themselves.
    """

    def __init__(self, strategy: str | None = None) -> None:
        self._strategy = strategy
        self._path = frozenset(sys.path)
        self._suites: dict[Path, Suite] = {}
        self._seen: set[str] = set()

    def collect(self, names: list[str]) -> Iterator[Line]:
        """Yield what each name holds, each target once."""
        for name in names:
            lines = [line for source in self._sources(name) for line in self._look_into(source)]
            for line in lines or [{"skipped": name, "reason": NOTHING}]:
                told = line["target"] if "target" in line else line["skipped"]
                if told not in self._seen:
                    self._seen.add(told)
                    yield line

    def _sources(self, name: str) -> Iterator[Source]:
        path, _, only = name.replace("::", ":").partition(":")
        only = only.replace(":", ".")
        found = Path(path)
        if found.is_dir() and not only:
            for file in self._suite(found).files(found.resolve()):
                yield self._of_file(file, "", named=False)
        elif path.endswith(".py"):
            yield self._of_file(found, only, named=True)
        else:
            yield Source(path, only)

    def _of_file(self, file: Path, only: str, *, named: bool) -> Source:
        module, root = place_of(file)
        return Source(module, only, file.resolve(), None if str(root) in self._path else str(root), named)

    def _suite(self, place: Path) -> Suite:
        folder = place if place.is_dir() else place.parent
        if folder not in self._suites:
            self._suites[folder] = Suite.of(place)
        return self._suites[folder]

    def _look_into(self, source: Source) -> Iterator[Line]:
        try:
            suite, module, conftests = self._import(source)
        except _LeftOutError as exc:
            yield {"skipped": source.module, "reason": str(exc)}
            return
        tests = ModuleTests(module, suite, conftests)
        try:
            found = tests.found(source.only)
        except Exception as exc:  # noqa: BLE001 - descriptors and the like, code of the user
            yield {"skipped": source.module, "reason": f"looking into it raises {type(exc).__name__}: {exc}"}
            return
        if not found and source.named:
            nothing = f"no Hypothesis tests and no fuzz_* functions in it: name a function as {source.module}:function"
            yield {"skipped": source.module, "reason": nothing}
        for name, reason in found:
            target = f"{source.module}:{name}" if source.only else tests.target(name)
            yield self._line(target, module, source.root) if reason is None else {"skipped": target, "reason": reason}

    def _import(self, source: Source) -> tuple[Suite, ModuleType, Holders]:
        """Import a module as pytest would, its `conftest.py` files first."""
        if source.root is not None:
            add_to_path(Path(source.root))
        file = source.file or file_of(source.module)
        if file is None:
            return self._suite(Path.cwd()), _imported(source), []
        suite = self._suite(file)
        try:
            conftests = [(os.path.relpath(str(found.__file__)), found) for found in suite.enter(file)]
        except BaseException as exc:
            raise _LeftOutError(f"its conftest.py cannot be imported: {type(exc).__name__}: {exc}") from exc
        _refuse_ignored(file, conftests)
        return suite, _imported(source), conftests

    def _line(self, target: str, module: ModuleType, root: str | None) -> Line:
        try:
            subject = load(target, self._strategy)
        except TargetError as exc:
            return {"skipped": target, "reason": " ".join(str(exc).split())}
        kind = "hypothesis" if subject.from_test else "function"
        return {"target": target, "kind": kind, "file": getattr(module, "__file__", None), "root": root}


class _LeftOutError(Exception):
    """A module is left out; the message says why."""


def _refuse_ignored(file: Path, conftests: Holders) -> None:
    for name, conftest in conftests:
        folder = Path(str(conftest.__file__)).parent
        ignored = [folder / entry for entry in getattr(conftest, "collect_ignore", ())]
        globs = [str(folder / entry) for entry in getattr(conftest, "collect_ignore_glob", ())]
        if any(file.is_relative_to(entry.resolve()) for entry in ignored) or any(map(file.match, globs)):
            raise _LeftOutError(f"is ignored by {name}")


def _imported(source: Source) -> ModuleType:
    try:
        module = importlib.import_module(source.module)
    except BaseException as exc:
        if type(exc).__name__ in {"Skipped", "SkipTest"}:  # pytest's own and that of unittest, for a whole module
            raise _LeftOutError(f"skips itself: {exc}") from exc
        raise _LeftOutError(f"cannot be imported: {type(exc).__name__}: {exc}") from exc
    file = getattr(module, "__file__", None)
    if source.file is not None and (file is None or Path(file).resolve() != source.file):
        raise _LeftOutError(f"another module of this name was imported from {file}: give one of the files another name")
    return module


def main() -> int:
    """Print what the arguments hold; what imported modules print goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m fuzzfarm_worker.fuzzing.collect")
    parser.add_argument("--supplied", action="store_true", help="inputs come from a strategy, or are told by a word")
    parser.add_argument("names", nargs="*", help="modules, targets, files and folders")
    arguments = parser.parse_args()
    # Bytes stand for whatever it is, which may be on workers only.
    strategy = strategy_word(None, InputsKind.BYTES) if arguments.supplied else None
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    found = 0
    with output:
        for line in Collector(strategy).collect(arguments.names):
            found += "target" in line
            output.write(json.dumps(line) + "\n")
            output.flush()
    return 0 if found else 2


if __name__ == "__main__":
    sys.exit(main())
