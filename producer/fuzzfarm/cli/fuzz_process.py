"""The fuzzing processes that the command line starts: collection and replay; the producer imports no worker code."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fuzzfarm.cli.finding_files import SavedFinding
from fuzzfarm.cli.plain_data import finding_record, to_json
from fuzzfarm_shared.errors import FuzzfarmError

MODULE_PATH = "PYTHONPATH"


class FuzzProcessError(FuzzfarmError):
    """A collection or a replay ended without an answer; the message has its last line."""


def module_path(roots: Iterable[str]) -> str:
    """Return a `PYTHONPATH`: the current directory and `roots` in front of what was there."""
    there = os.environ.get(MODULE_PATH, "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([str(Path.cwd()), *roots, *filter(None, there)]))


async def collect(names: Sequence[str], *, supplied: bool = False) -> list[dict[str, Any]]:
    """Return what can be fuzzed under `names`, and what was skipped, as the collection process tells it.

    Args:
        names: targets, modules, files and folders.
        supplied: whether inputs come from elsewhere, so that functions need no type hints.
    """
    return await _ask("collect", [*(["--supplied"] if supplied else []), "--", *names], roots=())


async def replay(saved: SavedFinding) -> dict[str, Any]:
    """Run a finding's example again in fresh children and return the verdict."""
    finding = saved.finding
    options = ["--example-timeout-s", str(finding.example_timeout_s)]
    roots = () if saved.root is None else (saved.root,)
    return (await _ask("replay", options, roots, to_json(finding_record(finding))))[-1]


async def reproducers(
    findings: Sequence[SavedFinding], database: str | None = None, below: Path | None = None
) -> list[dict[str, Any]]:
    """Return what reproduces each finding, as the process that makes it tells.

    Args:
        findings: the findings.
        database: folder or address of Hypothesis' example database, to which the examples of tests are added; or None.
        below: add only those of tests in this folder; None: all.
    """
    options = [] if database is None else ["--save-database", database]
    options += [] if below is None else ["--below", str(below)]
    roots = dict.fromkeys(saved.root for saved in findings if saved.root is not None)
    lines = "".join(to_json(finding_record(saved.finding)) + "\n" for saved in findings)
    return await _ask("reproducers", options, roots, lines)


async def _ask(module: str, arguments: Sequence[str], roots: Iterable[str], text: str = "") -> list[dict[str, Any]]:
    """Return the JSON lines that a process of the worker package prints; cancelling kills it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"fuzzfarm_worker.fuzzing.{module}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, MODULE_PATH: module_path(roots)},
    )
    try:
        answer, complaints = await process.communicate(text.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        lines: list[dict[str, Any]] = [json.loads(line) for line in answer.splitlines()]
    except ValueError:
        lines = []
    if not lines:
        reason = (complaints.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise FuzzProcessError(f"{module} gave no answer ({reason}): check that the target can be imported here")
    return lines
