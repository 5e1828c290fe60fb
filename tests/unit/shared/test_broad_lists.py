"""Allow-lists that allow more than they seem to."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fuzzfarm_shared.broad_lists import runs_anything, warnings_of
from fuzzfarm_shared.settings import WorkerHostSettings

COMMANDS = "can run any other program: name what jobs need instead"
TARGETS = "can run any code: name what jobs need instead"
ALL = "everything is allowed by"
MEND = "name only what jobs need"


def warned(**lists: Any) -> tuple[str, ...]:
    return warnings_of(WorkerHostSettings.load(**{"redis_url": "redis://example.org", **lists}))


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ff-", dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder) / "s"
        server.bind(str(path))
        yield path


@pytest.mark.parametrize(
    "program",
    ["bash", "/bin/sh", "python3", "python3.12", "/opt/old/Python2.7", "perl5.36.0", "env", "xargs", "busybox", "find",
     "gawk", "ssh", "sudo", "docker", "r2", "php8.2", "tar"],
)  # fmt: skip
def test_programs_that_run_others_are_known_by_name_and_version(program: str) -> None:
    assert runs_anything(program)


@pytest.mark.parametrize(
    "program", ["strings", "/usr/bin/file", "objdump", "binwalk", "yara", "sh.txt", "shred", "", "7z"]
)
def test_other_programs_are_left_alone(program: str) -> None:
    assert not runs_anything(program)


def test_a_program_is_known_by_what_its_links_lead_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = tmp_path / "dash"
    shell.write_text("#!/bin/true\n")
    shell.chmod(0o755)
    (tmp_path / "harmless").symlink_to(shell)
    assert runs_anything(str(tmp_path / "harmless"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runs_anything("harmless")


@pytest.mark.parametrize(
    ("lists", "warnings"),
    [
        ({}, ()),
        ({"allow_targets": "pkg,pkg.os,os:getpid", "allow_commands": "strings", "allow_roots": "/srv"}, ()),
        ({"allow_commands": "strings,bash,python3"}, (f"bash, python3 in FUZZFARM_ALLOW_COMMANDS {COMMANDS}",)),
        ({"allow_targets": "pkg,os,subprocess"}, (f"os, subprocess in FUZZFARM_ALLOW_TARGETS {TARGETS}",)),
        ({"allow_commands": "*"}, (f"{ALL} FUZZFARM_ALLOW_COMMANDS: {MEND}",)),
        (
            {"allow_targets": "*", "allow_roots": "/srv,/"},
            (f"{ALL} FUZZFARM_ALLOW_TARGETS and FUZZFARM_ALLOW_ROOTS: {MEND}",),
        ),
        (
            {"allow_roots": "*", "allow_commands": "sh"},
            (f"{ALL} FUZZFARM_ALLOW_ROOTS: {MEND}", f"sh in FUZZFARM_ALLOW_COMMANDS {COMMANDS}"),
        ),
    ],
    ids=["none", "narrow", "programs", "modules", "all programs", "all targets and folders", "two"],
)
def test_each_way_of_being_too_broad_has_its_sentence(lists: dict[str, str], warnings: tuple[str, ...]) -> None:
    assert warned(**lists) == warnings


def test_insecure_is_told_of_a_remote_server_only() -> None:
    (warning,) = warned(insecure=True)
    assert warning.startswith("FUZZFARM_INSECURE lets whoever reaches the server run code here: ")
    assert warned(insecure=True, redis_url="redis://127.0.0.1") == ()


def test_nothing_is_said_of_a_farm_that_only_its_user_can_reach(socket_path: Path) -> None:
    url = f"unix://:word@{socket_path}"
    socket_path.chmod(0o777)
    assert warned(redis_url=url, allow_targets="*") == ()  # its folder is closed to others
    socket_path.parent.chmod(0o755)
    assert len(warned(redis_url=url, allow_targets="*")) == 1
    socket_path.chmod(0o755)
    assert warned(redis_url=url, allow_targets="*") == ()  # others may not write to it
    socket_path.unlink()
    assert len(warned(redis_url=url, allow_targets="*")) == 1
