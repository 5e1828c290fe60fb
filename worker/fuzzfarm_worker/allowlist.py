"""What a worker may run: targets and programs that its operator has named, in folders and with variables of a list."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzzfarm_shared.errors import SettingsError, TargetError
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_shared.targets import check_home, import_target
from fuzzfarm_worker.environment import check_not_forbidden

EVERYTHING = "*"

log = get_logger(__name__)


class NotAllowedError(TargetError):
    """A target, a program, a folder or a variable that is on no list of this worker."""


class AllowList:
    """The lists of one worker.

    A target is matched before anything of it is imported: exactly ("pkg.mod:func"), or by a module or package that
    holds it ("pkg.mod", which also allows "pkg.mod.sub:func"). What it names must come from its own module, so that
    "mymod:os.system" or a re-exported function is refused unless it is listed exactly. A variable is matched by its
    name, or by a prefix ("APP_*").
    """

    def __init__(
        self, targets: Sequence[str], commands: Sequence[str], roots: Sequence[str], env: Sequence[str] = ()
    ) -> None:
        self._targets = tuple(targets)
        self._commands = tuple(commands)
        self._programs = frozenset(map(_resolved, commands))
        self._roots = tuple(Path(root).resolve() for root in roots if root != EVERYTHING)
        self._any_root = EVERYTHING in roots
        self._variables = frozenset(env)
        self._variable_prefixes = tuple(entry.removesuffix(EVERYTHING) for entry in env if entry.endswith(EVERYTHING))

    @classmethod
    def from_settings(cls, settings: WorkerHostSettings) -> AllowList:
        """Return the lists of `settings`; an empty one allows everything of its kind on a server of this host.

        On a remote server it allows nothing of its kind, unless `insecure` is set.

        Raises:
            SettingsError: on a remote server without a signing key or without a list, unless `insecure` is set.
        """
        trusting = settings.insecure or settings.is_local
        if not trusting:
            if not settings.signer.keys:
                raise SettingsError(
                    "a worker on a remote server needs FUZZFARM_SIGNING_KEY, because whoever writes to the queue can "
                    "run code here: set the same key on every host, or say --insecure"
                )
            if not (settings.allow_targets or settings.allow_commands):
                raise SettingsError(
                    "a worker on a remote server needs to know what it may run: name modules with --allow-target and "
                    "programs with --allow-command ('*' for all), or say --insecure"
                )
        by_default = (EVERYTHING,) if trusting else ()
        targets = settings.allow_targets or by_default
        commands = settings.allow_commands or by_default
        if EVERYTHING in (*targets, *commands):
            log.warning("this worker runs whatever it is sent", allow_targets=targets, allow_commands=commands)
        if EVERYTHING in settings.allow_env:
            log.warning("jobs of this worker may set any variable but those that load code", allow_env=EVERYTHING)
        return cls(targets, commands, settings.allow_roots or by_default, settings.allow_env or by_default)

    def check_target(self, name: str) -> None:
        """Raise NotAllowedError unless target `name` may be imported."""
        module = name.partition(":")[0]
        for entry in self._targets:
            if entry in {EVERYTHING, name, module} or (":" not in entry and module.startswith(f"{entry}.")):
                return
        raise NotAllowedError(
            name, f"target {name!r} is not allowed on this worker: add --allow-target {module} to its command line"
        )

    def lists(self, name: str) -> bool:
        """Return whether target `name` itself is on the list, so that it may come from any module."""
        return name in self._targets or EVERYTHING in self._targets

    def load_target(self, name: str) -> Any:
        """Import and return target `name`.

        Raises:
            NotAllowedError: for one that is not allowed here.
            TargetError: for one that cannot be imported, or comes from another module.
        """
        self.check_target(name)
        target = import_target(name)
        if not self.lists(name):
            check_home(name, target)
        return target

    def program(self, name: str) -> str:
        """Return the absolute path of program `name`.

        Raises:
            NotAllowedError: for one that is not allowed here.
            TargetError: for one that is not installed here.
        """
        path = shutil.which(name)
        if path is None:
            raise TargetError(name, f"there is no program {name!r} on this worker: install it, or give its full path")
        if EVERYTHING in self._commands or _resolved(path) in self._programs:
            return os.path.abspath(path)  # what was matched, whatever folder the job runs in
        raise NotAllowedError(
            name, f"program {name!r} is not allowed on this worker: add --allow-command {path} to its command line"
        )

    def check_variable(self, name: str) -> None:
        """Raise NotAllowedError unless a job may set variable `name`; TargetError for one that no list can allow."""
        check_not_forbidden(name)
        if name not in self._variables and not name.startswith(self._variable_prefixes):
            raise NotAllowedError(
                name, f"variable {name!r} is not allowed on this worker: add --allow-env {name} to its command line"
            )

    def holds(self, path: str) -> bool:
        """Return whether `path`, which has no links, lies inside the allowed roots."""
        return self._any_root or any(Path(path).is_relative_to(root) for root in self._roots)

    def root_of(self, path: str) -> str | None:
        """Return the allowed root that `path`, which `holds`, lies in; None where every folder is allowed."""
        if self._any_root:
            return None
        return next((str(root) for root in self._roots if Path(path).is_relative_to(root)), None)

    def folder(self, name: str) -> str:
        """Return working directory `name` with links resolved.

        Raises:
            NotAllowedError: outside of the allowed roots.
            TargetError: for one that cannot exist, such as a link to itself.
        """
        try:
            path = Path(name).resolve()
        except (OSError, RuntimeError, ValueError) as exc:
            raise TargetError(name, f"cannot find folder {name!r} on this worker: {exc}") from exc
        if self.holds(str(path)):
            return str(path)
        raise NotAllowedError(name, f"folder {name!r} is outside of this worker's roots: add --allow-root {path}")


def _resolved(program: str) -> str:
    return str(Path(shutil.which(program) or program).resolve())
