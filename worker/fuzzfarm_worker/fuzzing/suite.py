"""Suites: how pytest would look for tests below a folder, as its configuration says; pytest itself is not needed.

What counts is what decides which tests there are and what they import: the patterns of names, the folders left out,
`pythonpath`, and the `conftest.py` files, with the module path that importing them brings ("prepend", pytest's own
default: https://docs.pytest.org/en/stable/explanation/pythonpath.html). Plugins and hooks do not.
"""

from __future__ import annotations

import configparser
import importlib
import importlib.util
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from functools import cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

from fuzzfarm_shared.errors import TargetError

FUZZ_FILES = "fuzz_*.py"
"""Files that we look into beyond pytest's."""

CONFTEST = "conftest.py"
SECTIONS = {
    "pytest.ini": ("pytest",),
    ".pytest.ini": ("pytest",),
    "pyproject.toml": ("tool.pytest.ini_options", "tool.pytest"),
    "tox.ini": ("pytest",),
    "setup.cfg": ("tool:pytest",),
}
"""Where pytest looks for its configuration in a folder, in this order."""

PROJECT = ("setup.py", "pyproject.toml")
"""Files in the folder of a project, for one without a configuration of pytest."""


class Place(NamedTuple):
    """A module by the name that it has from a folder on the module path."""

    module: str
    root: Path


@dataclass(frozen=True, slots=True)
class Suite:
    """How tests below a folder are found; the defaults are pytest's.

    Attributes:
        root: the folder of the configuration, pytest's "rootdir".
        python_files: patterns for names of files with tests.
        python_classes: beginnings of names of classes with tests, or patterns.
        python_functions: the same for functions and methods.
        norecursedirs: patterns for folders that are left out.
        pythonpath: folders for the module path.
    """

    root: Path
    python_files: tuple[str, ...] = ("test_*.py", "*_test.py")
    python_classes: tuple[str, ...] = ("Test",)
    python_functions: tuple[str, ...] = ("test",)
    norecursedirs: tuple[str, ...] = (
        *("*.egg", ".*", "_darcs", "build", "CVS", "dist", "node_modules", "venv", "{arch}"),
    )
    pythonpath: tuple[str, ...] = ()

    @classmethod
    def of(cls, place: Path) -> Suite:
        """Return the suite that a file or a folder belongs to.

        Without any configuration its root is that of its project, or the folder that the place would be imported from.
        """
        place = place.resolve()
        folder = place if place.is_dir() else place.parent
        for root in (folder, *folder.parents):
            options = _options(root)
            if options is not None:
                known = {field.name for field in fields(cls)} - {"root"}
                return cls(root, **{name: _words(options[name]) for name in known & options.keys()})
        projects = (root for root in (folder, *folder.parents) if any((root / name).is_file() for name in PROJECT))
        return cls(next(projects, import_root(place)))

    def is_test_file(self, file: Path) -> bool:
        """Return whether pytest looks into a file."""
        return any(fnmatch(str(file), f"*/{p}") if "/" in p else fnmatch(file.name, p) for p in self.python_files)

    def is_test_class(self, name: str) -> bool:
        """Return whether a class of this name holds tests."""
        return _matches(name, self.python_classes)

    def is_test_function(self, name: str) -> bool:
        """Return whether a function or method of this name is a test."""
        return _matches(name, self.python_functions)

    def files(self, folder: Path) -> Iterator[Path]:
        """Yield the files below a folder that may hold targets, in the order of their names."""
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                if not self._is_left_out(path):
                    yield from self.files(path)
            elif path.suffix == ".py" and (self.is_test_file(path) or fnmatch(path.name, FUZZ_FILES)):
                yield path

    def _is_left_out(self, folder: Path) -> bool:
        patterns = (*self.norecursedirs, "__pycache__")
        is_loop = folder.is_symlink() and folder.resolve() in folder.absolute().parents
        return is_loop or (folder / "pyvenv.cfg").exists() or any(fnmatch(folder.name, one) for one in patterns)

    def enter(self, file: Path) -> list[ModuleType]:
        """Do what pytest does before it imports a test file: extend the module path, and import its `conftest.py`s.

        Returns:
            those modules, the outermost first; none for a file that is no test file.
        """
        if not self.is_test_file(file):
            return []
        for folder in reversed(self.pythonpath):
            add_to_path(self.root / folder)
        folders = [folder for folder in reversed(file.parents) if folder.is_relative_to(self.root)]
        return [_import_conftest(folder / CONFTEST) for folder in folders if (folder / CONFTEST).is_file()]


def enter_suite_of(target: str) -> None:
    """Do the same for the module of a target; nothing when it cannot be found, or is no test file.

    Raises:
        TargetError: when a `conftest.py` cannot be imported.
    """
    file = file_of(target.partition(":")[0])
    if file is None:
        return
    try:
        Suite.of(file).enter(file)
    except BaseException as exc:
        raise TargetError(
            target, f"a conftest.py of {target!r} cannot be imported: {type(exc).__name__}: {exc}; repair it"
        ) from exc


def file_of(module: str) -> Path | None:
    """Return the file that a module would be imported from; None when there is none, or its package is broken."""
    try:
        spec = importlib.util.find_spec(module)
    except BaseException:  # noqa: BLE001 - it imports the package; importing the module says what is wrong
        return None
    return Path(spec.origin).resolve() if spec is not None and spec.has_location and spec.origin is not None else None


def place_of(file: Path) -> Place:
    """Return how a file is imported: from the first folder upwards that is no package."""
    file = file.resolve()
    root = import_root(file)
    parts = file.relative_to(root).with_suffix("").parts
    return Place(".".join(parts[:-1] if parts[-1] == "__init__" else parts), root)


def import_root(place: Path) -> Path:
    """Return the first folder upwards from a file, or a folder, that is no package."""
    folder = place if place.is_dir() else place.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def add_to_path(folder: Path) -> None:
    """Put a folder first on the module path, unless it is there."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@cache
def _import_conftest(file: Path) -> ModuleType:
    """Import one by its file: every folder that is no package has a module named `conftest`."""
    name, root = place_of(file)
    add_to_path(root)
    if package := name.rpartition(".")[0]:
        importlib.import_module(package)
    loader = SourceFileLoader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    module = importlib.util.module_from_spec(cast("ModuleSpec", spec))
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _options(folder: Path) -> dict[str, Any] | None:
    """Return the options of pytest in a folder; None where it has none."""
    for name, sections in SECTIONS.items():
        file = folder / name
        if not file.is_file():
            continue
        read = _read_toml if file.suffix == ".toml" else _read_ini
        found = next((options for section in sections if (options := read(file, section)) is not None), None)
        if found is not None:
            return found
        if name.endswith("pytest.ini"):  # counts also when it is empty
            return {}
    return None


def _read_toml(file: Path, section: str) -> dict[str, Any] | None:
    try:
        found: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for part in section.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _read_ini(file: Path, section: str) -> dict[str, Any] | None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error):
        return None
    return dict(parser[section]) if parser.has_section(section) else None


def _words(option: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(shlex.split(option, comments=True) if isinstance(option, str) else map(str, option))


def _matches(name: str, beginnings: tuple[str, ...]) -> bool:
    return any(name.startswith(one) or (set(one) & set("*?[") and fnmatch(name, one)) for one in beginnings)
