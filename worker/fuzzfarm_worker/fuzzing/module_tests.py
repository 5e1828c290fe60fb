"""The tests of a module: those that pytest would run, and of the others why it would not, or why we do not."""

from __future__ import annotations

import inspect
import sys
import unittest
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from fuzzfarm_worker.fuzzing.generation import is_hypothesis_test
from fuzzfarm_worker.fuzzing.marks import Holders, autouse_fixture, reason_to_skip
from fuzzfarm_worker.fuzzing.subject import RUN_TEST
from fuzzfarm_worker.fuzzing.suite import Suite

FUZZ_FUNCTIONS = "fuzz_"
"""Functions beyond pytest's that are targets."""

Candidate = tuple[str, str | None]
"""The name of a possible target in its module, and why it is none."""


class ModuleTests:
    """The tests of one module, as pytest would find them.

    Args:
        module: the imported module.
        suite: says which names are tests.
        conftests: modules whose fixtures they have.
    """

    def __init__(self, module: ModuleType, suite: Suite, conftests: Holders) -> None:
        self._module = module
        self._suite = suite
        self._conftests = conftests
        self._holders: Holders = [(module.__name__, module)]

    def found(self, only: str) -> list[Candidate]:
        """Return the Hypothesis tests and `fuzz_*` functions, each with the reason to leave it out, or None.

        Args:
            only: what was asked for, or "": a class, for what it holds, or anything else, which is not judged.
        """
        if not only:
            return list(self._all())
        return [found for found in self._all() if found[0].startswith(f"{only}.")] or [(only, None)]

    def _all(self) -> Iterator[Candidate]:
        for name, value in list(vars(self._module).items()):
            if inspect.isclass(value):
                yield from self._of_class(name, value)
            elif is_hypothesis_test(value):
                yield name, self._misnamed(name) or self._reason(value, self._holders, _needed(value))
            elif name.startswith(FUZZ_FUNCTIONS) and callable(value) and value.__module__ == self._module.__name__:
                yield name, None

    def target(self, name: str) -> str:
        """Return the name of the target, that of the module that defines it: others may import its tests."""
        top = name.partition(".")[0]
        found = getattr(self._module, top)
        home = sys.modules.get(getattr(found, "__module__", ""), self._module)
        return f"{home.__name__ if getattr(home, top, None) is found else self._module.__name__}:{name}"

    def _of_class(self, name: str, cls: type[Any]) -> Iterator[Candidate]:
        is_case = issubclass(cls, unittest.TestCase)
        if not (is_case or self._suite.is_test_class(name)) or not getattr(cls, "__test__", True):
            return
        broken = None if is_case else _unmakeable(cls)
        for method, test in _methods(cls):
            static = isinstance(inspect.getattr_static(cls, method), staticmethod)
            misnamed = self._misnamed(method, in_case=is_case)
            needs = [] if is_case else _needed(test)[int(not static) :]
            yield f"{name}.{method}", broken or misnamed or self._reason(test, [*self._holders, (name, cls)], needs)
        for inner, value in list(vars(cls).items()):
            if inspect.isclass(value) and self._suite.is_test_class(inner) and list(_methods(value)):
                yield f"{name}.{inner}", "is a class inside a class: move it to the top level of its module"

    def _misnamed(self, name: str, *, in_case: bool = False) -> str | None:
        if in_case:
            is_test = name.startswith("test") or name == RUN_TEST
            return None if is_test else "pytest would not run it: tests of a TestCase have names that begin with test"
        if self._suite.is_test_function(name):
            return None
        names = ", ".join(self._suite.python_functions)
        return f"pytest would not run it: its name does not match python_functions ({names})"

    def _reason(self, test: Callable[..., Any], holders: Holders, needs: list[str]) -> str | None:
        return reason_to_skip(test, holders, needs) or autouse_fixture([*self._conftests, *holders])


def _unmakeable(cls: type[Any]) -> str | None:
    made_by = next((name for name in ("__init__", "__new__") if getattr(cls, name) is not getattr(object, name)), None)
    return None if made_by is None else f"pytest would not run it: its class has {made_by}"


def _methods(cls: type[Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the Hypothesis tests of a class; `runTest` of a case only counts where there is no other test."""
    for name, found in inspect.getmembers(cls):
        is_last_choice = name == RUN_TEST and any(other.startswith("test") for other in dir(cls))
        if is_hypothesis_test(found) and getattr(found, "__test__", True) and not is_last_choice:
            yield name, found


def _needed(test: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(test).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in kinds]
