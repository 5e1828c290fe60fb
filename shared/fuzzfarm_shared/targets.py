"""Names of targets: how a callable is named so that another host can import it, and how the name is resolved."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import shlex
import sys
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from types import ModuleType
from typing import Any

from fuzzfarm_shared.errors import TargetError

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)?\Z")
"""`module:function` or `module:Class.method`; deeper nesting is refused (it would reach into other objects)."""

COMMAND = "command: "
"""Begins the name of a command; the space keeps it apart from names of Python objects."""

MAX_TARGET_CHARS = 500
"""Longest name of a target: it is stored once per payload and shown in lists."""


def target_name(target: Any) -> str:
    """Return the name under which `target`, a name or a callable, can be imported.

    Raises:
        TargetError: for a lambda, a closure, a bound object, a function of a script run as `__main__`, or text that
            cannot be the name of a target.
    """
    if type(target) is str:
        return _checked_name(target)
    if not callable(target):
        raise TargetError(repr(target), f"a target is 'module:function' or a function, not {type(target).__name__}")
    module = getattr(target, "__module__", None)
    qualname = getattr(target, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise TargetError(
            repr(target), f"{target!r} has no name to import it by: define a function in a module and pass that"
        )
    _check_importable(target, module, qualname)
    return _checked_name(f"{module}:{qualname}")


@lru_cache(maxsize=1024)  # a batch names few targets many times, and the match costs more than the rest of a model
def _checked_name(name: str) -> str:
    if len(name) > MAX_TARGET_CHARS or not _TARGET.match(name):
        raise TargetError(name, f"{name[:80]!r} is no target: write 'module:function' or 'module:Class.method'")
    return name


def command_target(command: Sequence[str]) -> str:
    """Return the name of a command as a target: what a shell would be given, cut where it is too long for a name.

    No Python object has such a name.
    """
    name = COMMAND + shlex.join(command)
    if len(name) <= MAX_TARGET_CHARS:
        return name
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{name[: MAX_TARGET_CHARS - 20]}... {digest}"


def _check_importable(target: Any, module: str, qualname: str) -> None:
    name = f"{module}:{qualname}"
    if "<lambda>" in qualname or "<locals>" in qualname:
        what = "a lambda" if "<lambda>" in qualname else "defined inside another function"
        raise TargetError(name, f"{name} is {what} and no worker can import it: move it to the top level of a module")
    if module == "__main__":
        raise TargetError(
            name, f"{qualname} lives in the script being run, which workers cannot import: move it to a module"
        )
    owner = getattr(target, "__self__", None)
    if inspect.ismethod(target) and getattr(owner, "__qualname__", None) != qualname.rpartition(".")[0]:
        raise TargetError(name, f"{name} is bound to {owner!r}, which does not travel with it: pass a function instead")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = inspect.getattr_static(found, part, None)
    if inspect.unwrap(getattr(found, "__func__", found) or target) is not inspect.unwrap(
        getattr(target, "__func__", target)
    ):
        raise TargetError(name, f"{name} is not what that name imports (decorated or replaced?): pass its name as text")


def import_module_of(name: str) -> ModuleType:
    """Import and return the module of target `name`.

    Raises:
        TargetError: when it cannot be imported; the cause is chained.
    """
    try:
        return importlib.import_module(name.partition(":")[0])
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # a module may end with SystemExit, or with a test framework's own "skip this"
        raise import_failure(name, exc) from exc


def import_target(name: str) -> Any:
    """Import and return what `module:qualname` names.

    Raises:
        TargetError: when the module cannot be imported or has no such attribute; the cause is chained.
    """
    module_name, _, qualname = name.partition(":")
    found: Any = import_module_of(name)
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            raise TargetError(
                name, f"module {module_name!r} has no {qualname!r}: check the spelling of target {name!r}"
            ) from exc
    return found


def import_failure(name: str, reason: BaseException | str) -> TargetError:
    """Return the error of a target whose module raised `reason` when it was imported, here or in another process."""
    text = reason if isinstance(reason, str) else f"{type(reason).__name__}: {reason}"
    return TargetError(name, f"cannot import module {name.partition(':')[0]!r} of target {name!r}: {text}")


def check_installed(name: str) -> None:
    """Raise TargetError when this host cannot have the target; nothing of it is imported, which might kill us."""
    package = name.partition(":")[0].partition(".")[0]
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        raise TargetError(
            name, f"cannot import module {package!r} of target {name!r}: ModuleNotFoundError: install it on this worker"
        )


def check_home(name: str, target: Any) -> None:
    """Raise TargetError when `target`, which `name` imports, was defined in another module than `name` says."""
    module = name.partition(":")[0]
    home = getattr(target, "__module__", module)
    if home != module:
        raise TargetError(name, f"target {name!r} comes from {home!r}: allow it by its exact name")
