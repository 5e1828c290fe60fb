"""Allow-lists, without a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuzzfarm_shared.errors import SettingsError, TargetError
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_worker.allowlist import AllowList, NotAllowedError

REMOTE = {"redis_url": "redis://example.org", "signing_key": "k" * 32}


@pytest.mark.parametrize(
    ("entry", "target", "allowed"),
    [
        ("*", "any.thing:f", True),
        ("pkg", "pkg:f", True),
        ("pkg", "pkg.mod:Class.f", True),
        ("pkg", "pkgs:f", False),
        ("pkg.mod", "pkg:f", False),
        ("pkg.mod", "pkg.mod.sub:f", True),
        ("pkg.mod", "pkg.mode:f", False),
        ("pkg:f", "pkg:f", True),
        ("pkg:f", "pkg:f.g", False),
        ("pkg:f", "pkg:g", False),
        ("pkg:f", "pkg.mod:f", False),
        ("", "pkg:f", False),
    ],
)
def test_a_target_is_matched_exactly_or_at_a_dotted_boundary(entry: str, target: str, allowed: bool) -> None:
    allow_list = AllowList([entry], [], [])
    if allowed:
        allow_list.check_target(target)
    else:
        with pytest.raises(NotAllowedError, match="add --allow-target"):
            allow_list.check_target(target)


def test_nothing_of_a_refused_target_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "imported"
    (tmp_path / "module_with_a_trace.py").write_text(f"open({str(trace)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NotAllowedError):
        AllowList(["other"], [], []).load_target("module_with_a_trace:f")
    assert not trace.exists()


def test_a_name_from_another_module_is_allowed_only_exactly() -> None:
    with pytest.raises(TargetError, match="allow it by its exact name"):
        AllowList(["farm_targets"], [], []).load_target("farm_targets:borrowed_add")
    assert AllowList(["farm_targets:borrowed_add"], [], []).load_target("farm_targets:borrowed_add")(1, 2) == 3


def test_a_program_is_matched_where_its_links_lead(tmp_path: Path) -> None:
    program, link = tmp_path / "program", tmp_path / "link"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    link.symlink_to(program)
    assert AllowList([], [str(program)], []).program(str(link)) == str(link)
    (tmp_path / "echo").symlink_to("/bin/sh")
    with pytest.raises(NotAllowedError, match="add --allow-command"):
        AllowList([], ["echo"], []).program(str(tmp_path / "echo"))
    with pytest.raises(TargetError, match="no program 'nowhere-to-be-found'"):
        AllowList([], ["*"], []).program("nowhere-to-be-found")


def test_the_program_that_was_matched_is_the_one_that_runs_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert AllowList([], ["./tool"], []).program("./tool") == str(tmp_path / "tool")


def test_a_folder_is_matched_where_its_links_lead(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    allow_list = AllowList([], [], [str(tmp_path / "root")])
    assert allow_list.folder(str(tmp_path / "root")) == str((tmp_path / "root").resolve())
    for outside in ("root/out", "root/..", "rooted"):
        with pytest.raises(NotAllowedError, match="add --allow-root"):
            allow_list.folder(str(tmp_path / outside))


def test_a_variable_is_matched_by_its_name_or_a_prefix() -> None:
    lists = AllowList([], [], [], ["WORD", "APP_*"])
    for name in ("WORD", "APP_", "APP_MODE"):
        lists.check_variable(name)
    for name in ("WORDS", "APP", "app_mode", ""):
        with pytest.raises(NotAllowedError, match="add --allow-env"):
            lists.check_variable(name)


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_AUDIT",
        "DYLD_INSERT_LIBRARIES",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PATH",
        "IFS",
        "BASH_ENV",
        "ENV",
        "FUZZFARM_SIGNING_KEY",
        "GCONV_PATH",
        "PERL5OPT",
        "PERL5LIB",
        "RUBYOPT",
        "RUBYLIB",
        "NODE_OPTIONS",
        "GIT_SSH_COMMAND",
        "HOME",
    ],
)
def test_a_variable_that_loads_code_is_on_no_list(name: str) -> None:
    with pytest.raises(TargetError, match=f"a job may not set {name}: "):
        AllowList([], [], [], ["*", name]).check_variable(name)


def test_a_folder_that_no_system_can_have_is_refused() -> None:
    with pytest.raises(TargetError, match="cannot find folder"):
        AllowList([], [], ["*"]).folder("null\0")


def test_a_remote_worker_needs_a_key_and_a_list_unless_told_otherwise() -> None:
    remote = {"redis_url": "redis://example.org"}
    with pytest.raises(SettingsError, match="FUZZFARM_SIGNING_KEY"):
        AllowList.from_settings(WorkerHostSettings.load(**remote))
    with pytest.raises(SettingsError, match="no key in it"):
        AllowList.from_settings(WorkerHostSettings(**remote, signing_key=",", allow_targets="math"))
    with pytest.raises(SettingsError, match="--allow-target"):
        AllowList.from_settings(WorkerHostSettings.load(**remote, signing_key="k" * 32))
    listed = AllowList.from_settings(WorkerHostSettings.load(**remote, signing_key="k" * 32, allow_targets="math"))
    with pytest.raises(NotAllowedError):
        listed.check_target("os:getpid")
    AllowList.from_settings(WorkerHostSettings.load(**remote, insecure=True)).check_target("os:getpid")


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, {"target", "command", "root", "variable"}),
        ({"allow_targets": "math"}, {"command", "root", "variable"}),
        ({"allow_commands": "ls"}, {"target", "root", "variable"}),
        ({"allow_roots": "/srv"}, {"target", "command", "variable"}),
        ({"allow_env": "APP_*"}, {"target", "command", "root"}),
        ({**REMOTE, "allow_targets": "*"}, {"target"}),
        ({**REMOTE, "allow_commands": "*"}, {"command"}),
        ({**REMOTE, "allow_targets": "*", "allow_roots": "*"}, {"target", "root"}),
        ({**REMOTE, "allow_targets": "*", "allow_env": "*"}, {"target", "variable"}),
        ({**REMOTE, "insecure": True, "allow_targets": "math"}, {"command", "root", "variable"}),
    ],
)
def test_an_empty_list_allows_all_of_its_kind_here_and_nothing_of_it_on_a_remote_server(
    settings: dict[str, Any], allowed: set[str]
) -> None:
    lists = AllowList.from_settings(WorkerHostSettings.load(**settings))
    asked: dict[str, Callable[[], object]] = {
        "target": lambda: lists.check_target("os:getpid"),
        "command": lambda: lists.program("sh"),
        "root": lambda: lists.folder("/etc"),
        "variable": lambda: lists.check_variable("WORD"),
    }
    for kind, ask in asked.items():
        if kind in allowed:
            ask()
        else:
            with pytest.raises(NotAllowedError):
                ask()
