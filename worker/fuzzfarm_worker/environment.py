"""The environment of children: what programs need, nothing of ours, nothing that changes what they load."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from fuzzfarm_shared.errors import TargetError

PASSED_ON = ("HOME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
"""Variables of the worker that children get; secrets live in others."""

FORBIDDEN_PREFIXES = ("BASH_FUNC_", "DYLD_", "FUZZFARM_", "GIT_", "LD_", "PERL5", "PYTHON")
FORBIDDEN = frozenset(
    {
        "BASH_ENV",
        "ENV",
        "GCONV_PATH",
        "GLIBC_TUNABLES",
        "HOME",
        "IFS",
        "JAVA_TOOL_OPTIONS",
        "NODE_OPTIONS",
        "NODE_PATH",
        "PATH",
        "RUBYLIB",
        "RUBYOPT",
    }
)
"""Variables that a job may not set, whatever a list says: they name code to load, or files that name it."""


def child_environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child, with the variables that its job gives; see `AllowList.check_variable`."""
    return {**{name: os.environ[name] for name in PASSED_ON if name in os.environ}, **(given or {})}


def check_not_forbidden(name: str) -> None:
    """Raise TargetError for a variable that no job may set."""
    if name in FORBIDDEN or name.startswith(FORBIDDEN_PREFIXES):
        raise TargetError(name, f"a job may not set {name}: it could load code that is not allowed; leave it out")


def interpreter_environment() -> dict[str, str]:
    """Return the environment of a child that is a Python interpreter and imports what the worker can import."""
    return {**child_environment(), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
