"""What may import what, and what a light import must not load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "fuzzfarm": ROOT / "producer" / "fuzzfarm",
    "fuzzfarm_worker": ROOT / "worker" / "fuzzfarm_worker",
    "fuzzfarm_shared": ROOT / "shared" / "fuzzfarm_shared",
}
ALLOWED = {
    "fuzzfarm": {"fuzzfarm", "fuzzfarm_shared"},
    "fuzzfarm_worker": {"fuzzfarm_worker", "fuzzfarm_shared"},
    "fuzzfarm_shared": {"fuzzfarm_shared"},
}


def module_name(path: Path, package: str) -> str:
    parts = path.relative_to(PACKAGES[package].parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path, package): path for package, folder in PACKAGES.items() for path in sorted(folder.rglob("*.py"))
}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imported(module: str, *, at_import_time: bool) -> set[str]:
    """Return the names of the modules of ours that `module` imports, anywhere or when it is itself imported."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(SOURCES[module].read_text())]
    while pending:
        node = pending.pop()
        if at_import_time and (is_type_checking(node) or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module is not None
            found.update(
                submodule if (submodule := f"{node.module}.{alias.name}") in SOURCES else node.module
                for alias in node.names
            )
        pending.extend(ast.iter_child_nodes(node))
    return {name for name in found if name.partition(".")[0] in PACKAGES}


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_what_its_role_may(module: str) -> None:
    packages = {name.partition(".")[0] for name in imported(module, at_import_time=False)}
    assert packages <= ALLOWED[module.partition(".")[0]]


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: imported(module, at_import_time=True) - {module} for module in SOURCES}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert set(SOURCES) <= set(order)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (resources.files(package) / "py.typed").is_file()


def loaded_by(statement: str) -> set[str]:
    """Return the top-level names in `sys.modules` of a fresh interpreter after `statement`."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True).split())


def test_a_light_import_of_the_producer_loads_nothing_heavy() -> None:
    loaded = loaded_by("import fuzzfarm")
    assert "fuzzfarm_shared" in loaded
    assert loaded & {"hypothesis", "typer", "rich", "arq", "fuzzfarm_worker"} == set()


def test_what_both_roles_share_loads_neither() -> None:
    modules = [module for module in SOURCES if module.startswith("fuzzfarm_shared")]
    assert loaded_by(f"import {', '.join(modules)}") & {"fuzzfarm", "fuzzfarm_worker", "hypothesis", "arq"} == set()


def test_every_package_starts_with_what_it_is() -> None:
    for module, path in SOURCES.items():
        assert ast.get_docstring(ast.parse(path.read_text())), module


STARTS = re.compile(
    r"os\.(fork|forkpty|system|popen|posix_spawn\w*|spawn\w+|exec\w+)|subprocess\.(Popen|run|call|check_\w+|get\w*output)"
    r"|.*\b(create_)?subprocess_(exec|shell)|.*\bProcessPoolExecutor|multiprocessing\b.*|pty\.\w+"
)
"""Ways to start a process, or to become another program."""

MAY_START = {
    "fuzzfarm_worker.supervisor": "starts whole workers",
    "fuzzfarm_worker.sandbox.zygote": "forks inside a child that the manager has started",
    "fuzzfarm_worker.fuzzing.apart": "forks inside such a child, and dies with that fork",
    "fuzzfarm_worker.fuzzing.commands": "starts fuzzed commands inside such a child, and waits for their end",
    "fuzzfarm_worker.fuzzing.last_words": "forks inside such a child, and reaps that fork at once",
}


def starts_processes(module: str) -> bool:
    tree = ast.walk(ast.parse(SOURCES[module].read_text()))
    return any(STARTS.fullmatch(ast.unparse(node)) for node in tree if isinstance(node, ast.Attribute | ast.Name))


@pytest.mark.parametrize("module", [module for module in SOURCES if module.startswith("fuzzfarm_worker")])
def test_only_the_process_package_starts_children_of_a_worker(module: str) -> None:
    may_start = module in MAY_START or module.startswith("fuzzfarm_worker.processes")
    assert may_start or not starts_processes(module)


@pytest.mark.parametrize("module", [*MAY_START, "fuzzfarm_worker.processes.guardian"])
def test_a_start_of_a_process_is_noticed(module: str) -> None:
    assert starts_processes(module)
