"""Names of targets: how a callable is named so that another host can import it, and how the name is resolved."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

from fuzzfarm_shared.errors import TargetError

TARGET_PATTERN = r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)?$"
"""`module:function` or `module:Class.method`; deeper nesting is refused (it would reach into other objects)."""


def target_name(target: Any) -> Any:
    """Return the name under which `target` can be imported; what is no callable is returned as it is.

    Raises:
        TargetError: for a lambda, a closure, a bound object or a function of a script run as `__main__`.
    """
    if isinstance(target, str) or not callable(target):
        return target
    module = getattr(target, "__module__", None)
    qualname = getattr(target, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise TargetError(
            repr(target), f"{target!r} has no name to import it by: define a function in a module and pass that"
        )
    _check_importable(target, module, qualname)
    return f"{module}:{qualname}"


def _check_importable(target: Any, module: str, qualname: str) -> None:
    name = f"{module}:{qualname}"
    if "<lambda>" in qualname or "<locals>" in qualname:
        what = "a lambda" if "<lambda>" in qualname else "defined inside another function"
        raise TargetError(name, f"{name} is {what} and no worker can import it: move it to the top level of a module")
    if module == "__main__":
        raise TargetError(
            name, f"{qualname} lives in the script being run, which workers cannot import: move it to a module"
        )
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = inspect.getattr_static(found, part, None)
    if inspect.unwrap(getattr(found, "__func__", found) or target) is not inspect.unwrap(
        getattr(target, "__func__", target)
    ):
        raise TargetError(name, f"{name} is not what that name imports (decorated or replaced?): pass its name as text")


def import_target(name: str) -> Any:
    """Import and return what `module:qualname` names.

    Raises:
        TargetError: when the module cannot be imported or has no such attribute; the cause is chained.
    """
    module_name, _, qualname = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # a module may end with SystemExit, or with a test framework's own "skip this"
        raise TargetError(
            name, f"cannot import module {module_name!r} of target {name!r}: {type(exc).__name__}: {exc}"
        ) from exc
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            raise TargetError(
                name, f"module {module_name!r} has no {qualname!r}: check the spelling of target {name!r}"
            ) from exc
    return found
