"""Marks: what pytest would know of a test beyond its code, and that keeps us from running it; pytest is not needed."""

from __future__ import annotations

import inspect
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

FIXTURE_ATTRIBUTES = ("_fixture_function_marker", "_pytestfixturefunction")
"""Where a fixture keeps how it was declared: since pytest 8.4, and before."""

Holders = list[tuple[str, Any]]
"""What may hold marks and fixtures for a test, from the module inwards, each with the name it has for people."""


def reason_to_skip(test: Callable[..., Any], holders: Holders, needs: Iterable[str] = ()) -> str | None:
    """Return why a test is left out, or None.

    Args:
        test: the function, as it is decorated.
        holders: its module and class.
        needs: parameters that nobody supplies so far.
    """
    marks = [mark for _, holder in [*holders, ("", test)] for mark in _marks(holder)]
    for reasons in (
        _unittest_skips(test, holders),
        _skips(marks, test),
        _parameters(marks),
        _fixtures(marks, needs),
    ):
        for reason in reasons:
            return reason
    return None


def autouse_fixture(holders: Holders) -> str | None:
    """Return which fixture runs for every test of these holders, as a reason to skip them, or None."""
    for name, holder in holders:
        for attribute, value in inspect.getmembers_static(holder):
            marker = next((m for a in FIXTURE_ATTRIBUTES if (m := getattr(value, a, None)) is not None), None)
            if getattr(marker, "autouse", False):
                return f"needs the fixture {getattr(marker, 'name', None) or attribute} of {name}, which is autouse"
    return None


def _marks(holder: Any) -> list[Any]:
    if isinstance(holder, type):
        own = [vars(cls).get("pytestmark", []) for cls in reversed(holder.__mro__)]
        return [mark for marks in own for mark in _as_marks(marks)]
    return _as_marks(getattr(holder, "pytestmark", []))


def _as_marks(marks: Any) -> list[Any]:
    found = marks if isinstance(marks, list | tuple) else [marks]
    return [getattr(mark, "mark", mark) for mark in found]


def _unittest_skips(test: Any, holders: Holders) -> Iterator[str]:
    for holder in (test, *(holder for _, holder in holders if not isinstance(holder, ModuleType))):
        if getattr(holder, "__unittest_skip__", False):
            yield _because("is skipped", getattr(holder, "__unittest_skip_why__", ""))


def _skips(marks: list[Any], test: Any) -> Iterator[str]:
    for mark in marks:
        if mark.name in {"skip", "skipif", "xfail"} and _holds(mark, test):
            reason = mark.kwargs.get("reason") or (mark.args[0] if mark.name == "skip" and mark.args else "")
            yield _because(f"is marked {mark.name}", reason)


def _because(what: str, reason: Any) -> str:
    return f"{what}: {reason}" if reason else what


def _holds(mark: Any, test: Any) -> bool:
    """Whether the condition of a mark holds; without one it does, and one that cannot be evaluated does not."""
    conditions = () if mark.name == "skip" else (*mark.args, *filter(None, [mark.kwargs.get("condition")]))
    return not conditions or any(_is_true(condition, test) for condition in conditions)


def _is_true(condition: Any, test: Any) -> bool:
    if not isinstance(condition, str):
        return bool(condition)
    names = {"os": os, "sys": sys, "platform": platform, **getattr(inspect.unwrap(test), "__globals__", {})}
    try:
        return bool(eval(condition, names))  # noqa: S307 - code of the test suite, which is run anyway
    except Exception:  # noqa: BLE001 - code of the user
        return False


def _parameters(marks: list[Any]) -> Iterator[str]:
    names = [str(name) for mark in marks if mark.name == "parametrize" for name in _parametrized(mark)]
    if names:
        yield f"is parametrized over {', '.join(names)}"


def _parametrized(mark: Any) -> list[str]:
    names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


def _fixtures(marks: list[Any], needs: Iterable[str]) -> Iterator[str]:
    used = [str(name) for mark in marks if mark.name == "usefixtures" for name in mark.args]
    if names := [*needs, *used]:
        yield f"needs the fixture{'s' * (len(names) > 1)} {', '.join(names)}"
