"""Scripts: a finding as Python source that fails in the same way, without fuzzfarm and without Hypothesis' search."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import sys
import sysconfig
import unittest
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

from fuzzfarm_worker.fuzzing.commands import INPUT_FILE
from fuzzfarm_worker.fuzzing.subject import Subject
from fuzzfarm_worker.fuzzing.suite import import_root

HOMES = ("math", "decimal", "fractions", "uuid", "datetime", "collections", "pathlib", "ipaddress", "array")
"""Modules whose names the sources of values use without the module: nan, Decimal, UUID, OrderedDict, ..."""

_STDLIB = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
"""The first entries of the module path that are the interpreter's own, but for a zip file of it."""

CASE = "case"
"""What the instance of a test class is called in a script."""


def script_of(subject: Subject, example: str, title: str) -> str | None:
    """Return the source of a script that runs an example, or None where the example's text is no source.

    Its arguments are evaluated here, so that a value whose text does not make it again is noticed; the target is not
    called.

    Args:
        subject: the target.
        example: as its finding has it.
        title: of the finding, in one line.
    """
    module = sys.modules[subject.target.partition(":")[0]]
    folders = _folders_of(module)
    try:
        tree = ast.parse(example)
        imports = sorted({_import_of(name, module) for name in _needed(tree)})
    except (SyntaxError, ValueError, LookupError, RecursionError, MemoryError):
        return None
    if subject.machine is not None:
        return _written(title, folders, [], [*imports, ""], [example])
    call = tree.body[0].value if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr) else None
    if not isinstance(call, ast.Call) or not _can_be_made(call, imports):
        return None
    owner, _, method = subject.name.rpartition(".")
    imports = sorted({*imports, f"from {module.__name__} import {owner or method}"})
    arguments = ast.get_source_segment(example, call)
    assert arguments is not None  # noqa: S101  # the call has its place from this text
    text = arguments[len(ast.get_source_segment(example, call.func) or "") + 1 : -1]
    return _written(title, folders, _modules_of(subject), imports, [*_set_up(subject), _call(subject, text)])


def command_script(command: Sequence[str], given: bytes, title: str) -> str:
    """Return the source of a script that gives a command its input, and prints how it ended.

    Args:
        command: the program and its arguments.
        given: its input.
        title: of the finding, in one line.
    """
    words = [("file.name" if word == INPUT_FILE else repr(word)) for word in command]
    words = [f"{word}.replace({INPUT_FILE!r}, file.name)" if INPUT_FILE in word else word for word in words]
    takes_file = "file.name" in "".join(words)
    run = f"subprocess.run([{', '.join(words)}]{'' if takes_file else ', input=given'})"
    body = [f"given = {given!r}"]
    if takes_file:
        body += ["with tempfile.NamedTemporaryFile() as file:", "    file.write(given)", "    file.flush()"]
    body += [f"{'    ' if takes_file else ''}print({run})"]
    return _written(title, [], ["subprocess", "tempfile"] if takes_file else ["subprocess"], [], body)


def _folders_of(module: ModuleType) -> list[str]:
    """Return what stands in front of the module path; nothing for a module that this environment finds anyway."""
    file = getattr(module, "__file__", None)
    own = list(dict.fromkeys(takewhile(lambda entry: entry not in _STDLIB and not entry.endswith(".zip"), sys.path)))
    return own if file is not None and str(import_root(Path(file).resolve())) in own else []


def _needed(tree: ast.Module) -> set[tuple[str, bool]]:
    """Return the names that an example uses and does not assign, each with whether something of it is looked up."""
    calls = [node.value.func for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    owners = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    assigned = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    target = {id(node) for call in calls for node in ast.walk(call)} if len(tree.body) == 1 else set()
    used = [node for node in names if id(node) not in target and node.id not in assigned]
    return {(node.id, id(node) in owners) for node in used if not hasattr(builtins, node.id)}


def _import_of(needed: tuple[str, bool], module: ModuleType) -> str:
    """Return the statement that makes a name known; LookupError where none does."""
    name, has_attribute = needed
    if has_attribute and name in sys.stdlib_module_names:  # `datetime.date(...)`, whatever the target calls so
        return f"import {name}"
    for home in (module.__name__, *HOMES):
        if hasattr(importlib.import_module(home), name):
            return f"from {home} import {name}"
    raise LookupError(name)


def _can_be_made(call: ast.Call, imports: Iterable[str]) -> bool:
    """Whether the arguments of a call can be evaluated."""
    known: dict[str, Any] = {}
    try:
        exec("\n".join(imports), known)  # noqa: S102  # our own import statements
        for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
            eval(compile(ast.Expression(argument), "<example>", "eval"), known)  # noqa: S307  # as the target would get it
    except Exception:  # noqa: BLE001  # code of the user
        return False
    return True


def _modules_of(subject: Subject) -> list[str]:
    return ["asyncio"] if inspect.iscoroutinefunction(subject.function) else []


def _set_up(subject: Subject) -> Iterator[str]:
    """Yield what prepares the instance of a test method, as `subject.load` does."""
    owner, _, method = subject.name.rpartition(".")
    if subject.instance is None:
        return
    if isinstance(subject.instance, unittest.TestCase):
        yield f'{CASE} = {owner}("{method}")'
        yield f"{CASE}.setUpClass()"
        yield f"{CASE}.setUp()"
        return
    yield f"{CASE} = {owner}()"
    for hook, argument in (("setup_class", ""), ("setup_method", f"{CASE}.{method}")):
        if (found := getattr(subject.instance, hook, None)) is not None:
            yield f"{CASE}.{hook}({argument if inspect.signature(found).parameters else ''})"


def _call(subject: Subject, arguments: str) -> str:
    called = f"{subject.name}.hypothesis.inner_test" if subject.from_test else subject.name
    if subject.instance is not None:
        if subject.from_test:
            arguments = ", ".join(filter(None, [CASE, arguments]))
        else:
            called = f"{CASE}.{subject.name.rpartition('.')[2]}"
    call = f"{called}({arguments})"
    return f"asyncio.run({call})" if _modules_of(subject) else call


def _written(title: str, folders: list[str], modules: list[str], imports: list[str], body: list[str]) -> str:
    lines = [f"# {' '.join(title.split())}"]
    if folders:
        lines += ["import sys", f"sys.path[:0] = {folders!r}"]
    return "\n".join([*lines, *(f"import {name}" for name in modules), *filter(None, imports), "", *body, ""])
