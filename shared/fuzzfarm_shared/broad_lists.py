"""Allow-lists that allow more than they seem to: everything, or programs that run any other program."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from fuzzfarm_shared.settings import WorkerHostSettings

# Of a busybox or coreutils, each command is a link to the one program, which is what an allow-list matches.
SHELLS = "ash bash busybox coreutils csh dash fish ksh mksh pwsh sh tcsh toybox zsh"
INTERPRETERS = """
    awk bun deno elixir erl expect gawk gdb ghci guile irb java jjs julia jshell lldb lua luajit mawk nawk node nodejs
    ocaml osascript perl php pypy python racket rscript ruby sbcl tclsh wish
"""
RUNNERS = """
    at chroot chrt cpulimit crontab doas docker env find firejail flock ionice kubectl ltrace nerdctl nice nohup nsenter
    parallel perf pkexec podman run-parts runuser screen script setarch setpriv setsid socat ssh start-stop-daemon
    stdbuf strace su sudo systemd-run taskset time timeout tmux unshare uv uvx valgrind watch xargs xvfb-run
"""
SIDE_DOORS = """
    cargo cmake cobc ed emacs ex git go less make man more nano npm npx nvim pip pipx pytest r2 radare2 rizin rsync
    rview scp sed sftp sqlite3 tar tcpdump vi view vim vimdiff zip
"""
"""Meant for something else, but an argument or the input can name a program to run."""

RUNS_ANYTHING = frozenset(f"{SHELLS} {INTERPRETERS} {RUNNERS} {SIDE_DOORS}".split())
"""The better known ones of https://gtfobins.github.io: allowing one allows every program, to all who may submit."""

MODULES = frozenset(
    {"builtins", "code", "ctypes", "importlib", "marshal", "os", "pickle", "pty", "runpy", "subprocess"}
)
"""Of the standard library: with one of them as a whole, a call can run any code or program."""

_VERSION = re.compile(r"[-.\d]+$")
_EVERYTHING = {"allow_targets": ("*",), "allow_commands": ("*",), "allow_roots": ("*", "/"), "allow_env": ("*",)}


def warnings_of(settings: WorkerHostSettings) -> tuple[str, ...]:
    """Return a sentence for each way in which these lists are broader than a farm needs; it says how to mend it.

    A farm that only its own user can reach needs no lists, so nothing is said of it.
    """
    return () if settings.is_private else tuple(_warnings(settings))


def _warnings(settings: WorkerHostSettings) -> Iterator[str]:
    broad = [name for name, entries in _EVERYTHING.items() if set(entries) & set(getattr(settings, name))]
    if broad:
        variables = " and ".join(f"FUZZFARM_{name.upper()}" for name in broad)
        yield f"everything is allowed by {variables}: name only what jobs need"
    runners = [name for name in settings.allow_commands if runs_anything(name)]
    if runners:
        yield f"{', '.join(runners)} in FUZZFARM_ALLOW_COMMANDS can run any other program: name what jobs need instead"
    modules = [name for name in settings.allow_targets if name in MODULES]
    if modules:
        yield f"{', '.join(modules)} in FUZZFARM_ALLOW_TARGETS can run any code: name what jobs need instead"
    if settings.insecure and not settings.is_local:
        yield "FUZZFARM_INSECURE lets whoever reaches the server run code here: set a signing key and allow-lists"


def runs_anything(program: str) -> bool:
    """Return whether `program`, a name or path, or what its links lead to, is known to run other programs."""
    found = shutil.which(program)
    names = {Path(program).name, Path(found).resolve().name if found else ""}
    return any(name in RUNS_ANYTHING or _VERSION.sub("", name) in RUNS_ANYTHING for name in map(str.lower, names))
