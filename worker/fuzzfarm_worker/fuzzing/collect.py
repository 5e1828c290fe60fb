"""Collection: `python -m fuzzfarm_worker.fuzzing.collect [--supplied] NAME...` prints what can be fuzzed.

A NAME is a module (`mymod`), a target (`mymod:parse`), a file (`tests/test_x.py`, also `tests/test_x.py::test_y`), or
a folder, whose `test_*.py`, `*_test.py` and `fuzz_*.py` are taken. Found are Hypothesis tests and functions named
`fuzz_*`; each is one JSON object on a line:

    {"target": "test_x:test_y", "kind": "hypothesis", "file": "/src/tests/test_x.py", "root": "/src/tests"}
    {"skipped": "test_x:test_z", "reason": "..."}

`root` is the folder that workers need on their module path for the target, or null when it is on ours already.
With --supplied, inputs come from elsewhere: functions need no type hints, and Hypothesis tests take none.
Exit code 0 when something was found, 2 when nothing was.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import sys
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.inputs import InputsKind
from fuzzfarm_worker.fuzzing.generation import is_hypothesis_test
from fuzzfarm_worker.fuzzing.subject import load
from fuzzfarm_worker.fuzzing.words import strategy_word

PATTERNS = ("test_*.py", "*_test.py", "fuzz_*.py")
"""pytest's own two, and ours."""

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A module to look into.

    Attributes:
        module: its dotted name.
        root: the folder it is imported from, or None for the module path as it is.
        only: the one attribute that was asked for, or "".
    """

    module: str
    root: Path | None
    only: str


def collect(names: list[str], strategy: str | None = None) -> Iterator[Line]:
    """Yield what each name holds; modules are imported here.

    Args:
        names: as a user gives them.
        strategy: the word that tells what makes the inputs of all; None: the targets themselves.
    """
    for name in names:
        for place in places(name):
            yield from _look_into(place, strategy)


def places(name: str) -> list[Place]:
    """Return the modules that a name given by a user stands for."""
    path, _, only = name.replace("::", ":").partition(":")
    only = only.replace(":", ".")
    found = Path(path)
    if found.is_dir() and not only:
        files = sorted({file for pattern in PATTERNS for file in found.rglob(pattern)})
        return [_of_file(file, "") for file in files]
    if path.endswith(".py"):
        return [_of_file(found, only)]
    return [Place(path, None, only)]


def _of_file(file: Path, only: str) -> Place:
    """Name a file as pytest's "prepend" does: from the first folder upwards that is no package."""
    file = file.resolve()
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    parts = file.relative_to(root).with_suffix("").parts
    return Place(".".join(parts[:-1] if parts[-1] == "__init__" else parts), root, only)


def _look_into(place: Place, strategy: str | None) -> Iterator[Line]:
    root = None if place.root is None or str(place.root) in sys.path else str(place.root)
    if root is not None:
        sys.path.insert(0, root)
    try:
        module = importlib.import_module(place.module)
    except BaseException as exc:  # noqa: BLE001  # code of the user; pytest's skip of a module is a BaseException
        yield {"skipped": place.module, "reason": f"cannot be imported: {type(exc).__name__}: {exc}"}
        return
    candidates = [place.only] if place.only else list(_candidates(module))
    if not candidates:
        reason = f"no Hypothesis tests and no fuzz_* functions in it: name a function as {place.module}:function"
        yield {"skipped": place.module, "reason": reason}
    for qualname in candidates:
        yield _line(f"{place.module}:{qualname}", strategy, module, root)


def _candidates(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        if inspect.isclass(value) and _is_test_class(name, value):
            yield from (f"{name}.{method}" for method, found in inspect.getmembers(value) if is_hypothesis_test(found))
        elif getattr(value, "__module__", None) == module.__name__ and (
            is_hypothesis_test(value) or (name.startswith("fuzz_") and callable(value))
        ):
            yield name


def _is_test_class(name: str, cls: type[Any]) -> bool:
    return name.startswith("Test") or issubclass(cls, unittest.TestCase)


def _line(target: str, strategy: str | None, module: ModuleType, root: str | None) -> Line:
    try:
        subject = load(target, strategy)
    except TargetError as exc:
        return {"skipped": target, "reason": " ".join(str(exc).split())}
    kind = "hypothesis" if subject.from_test else "function"
    return {"target": target, "kind": kind, "file": getattr(module, "__file__", None), "root": root}


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
        for line in collect(arguments.names, strategy):
            found += "target" in line
            output.write(json.dumps(line) + "\n")
            output.flush()
    return 0 if found else 2


if __name__ == "__main__":
    sys.exit(main())
