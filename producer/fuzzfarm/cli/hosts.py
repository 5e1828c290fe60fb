"""Commands about workers: up, worker and workers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Annotated, Any, NoReturn

import typer

from fuzzfarm.cli.failures import ExitCode
from fuzzfarm.cli.options import URL_VARIABLE, Json, Redis, Workers, run, usable_cores
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.views import count, worker_table
from fuzzfarm.farm import Farm
from fuzzfarm_shared.settings import WorkerHostSettings

COUNT_EVERY_S = 2.0
"""How often `up` looks whether workers have come or gone."""

Concurrency = Annotated[
    int | None,
    typer.Option("--max-concurrency", "-c", min=1, metavar="N", help="Operations at once in one process (50).",
                 show_default=False),
]  # fmt: skip
Processes = Annotated[int, typer.Option("--processes", "-p", min=1, metavar="N", help="Worker processes.")]
AllowTarget = Annotated[
    list[str] | None,
    typer.Option("--allow-target", metavar="NAME", help="module, module:name or *; repeat it.", show_default=False),
]
AllowCommand = Annotated[
    list[str] | None,
    typer.Option("--allow-command", metavar="PROGRAM", help="Program that jobs may run, or *; repeat it.",
                 show_default=False),
]  # fmt: skip
AllowRoot = Annotated[
    list[str] | None,
    typer.Option("--allow-root", metavar="FOLDER", help="Folder that jobs may use, or *; repeat it.",
                 show_default=False),
]  # fmt: skip
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Work on a remote server without a signing key or allow-list.")
]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Name to show instead of the host's.", show_default=False)
]


def up(workers: Workers = None, max_concurrency: Concurrency = None, as_json: Json = False) -> None:
    """Start a server and workers in the foreground.

    Other shells of this user can use them until Ctrl-C.
    """
    run(_up(workers or usable_cores(), max_concurrency, Output(as_json)))


def worker(
    max_concurrency: Concurrency = None,
    processes: Processes = 1,
    allow_target: AllowTarget = None,
    allow_command: AllowCommand = None,
    allow_root: AllowRoot = None,
    insecure: Insecure = False,
    name: Name = None,
    redis: Redis = None,
    as_json: Json = False,  # noqa: ARG001 - a worker prints no results
) -> None:
    """Run workers for a farm on this host.

    Workers that die are started again. On a remote server they need FUZZFARM_SIGNING_KEY and an allow-list, or
    --insecure. They log to standard error; --json changes nothing, because a worker prints no results.
    """
    settings = WorkerHostSettings.load(
        redis_url=redis,
        max_concurrency=max_concurrency,
        allow_targets=allow_target,
        allow_commands=allow_command,
        allow_roots=allow_root,
        insecure=insecure or None,
        name=name,
    )
    _become([sys.executable, "-m", "fuzzfarm_worker", "supervise", "--processes", str(processes)], _variables(settings))


def workers(redis: Redis = None, as_json: Json = False) -> None:
    """List the live workers of a farm and what they do."""
    run(_workers(redis, Output(as_json)))


async def _up(processes: int, max_concurrency: int | None, output: Output) -> int:
    try:
        async with Farm.embedded(processes, max_concurrency=max_concurrency) as farm:
            output.record({"url": farm.url, "workers": processes})
            output.say(f"A farm with {count(processes, 'worker')} is up. In another shell:")
            output.say(f"  export {URL_VARIABLE}={farm.url}")
            output.say("Ctrl-C stops it; its batches go with it.")
            await _tell_changes(farm, output)
    except asyncio.CancelledError:
        output.note("stopped")
    return ExitCode.CLEAN


async def _tell_changes(farm: Farm, output: Output) -> NoReturn:
    told = -1
    while True:
        live = len(await farm.workers())
        if live != told:
            output.note(f"{count(live, 'worker')} ready")
            told = live
        await asyncio.sleep(COUNT_EVERY_S)


async def _workers(redis: str | None, output: Output) -> int:
    async with Farm.connect(redis) as farm:
        reports = await farm.workers()
    for report in reports:
        output.record(report)
    output.say(worker_table(reports) if reports else "no workers: start one with `fuzzfarm worker`")
    return ExitCode.CLEAN


def _variables(settings: WorkerHostSettings) -> dict[str, str]:
    """Return what was set, as variables: a password in the server's address stays out of the process list."""
    names = settings.model_fields_set - {"signing_key"}
    return {f"FUZZFARM_{name.upper()}": _text(getattr(settings, name)) for name in names}


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _become(command: list[str], variables: dict[str, str]) -> NoReturn:
    """Replace this process by `command`, so that signals and the exit code are its own."""
    environment = {**os.environ, **variables}
    if os.name == "posix":
        sys.stdout.flush()
        os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted
    raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)
