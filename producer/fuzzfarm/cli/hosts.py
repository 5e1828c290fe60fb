"""Commands about workers: up, worker and workers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Annotated, Any, NoReturn

import typer

from fuzzfarm.cli.failures import ExitCode
from fuzzfarm.cli.glance import FarmGlance
from fuzzfarm.cli.options import URL_VARIABLE, Json, Redis, Workers, run, usable_cores
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.views import count, farm_line, worker_table
from fuzzfarm.farm import Farm
from fuzzfarm_shared.settings import WorkerHostSettings

COUNT_EVERY_S = 2.0
"""How often `up` looks whether workers have come or gone."""


def _setting(name: str, *flags: str, metavar: str | None = None) -> Any:
    """Return the option of a worker's setting, with the setting's own words and default."""
    field = WorkerHostSettings.model_fields[name]
    words = str(field.description).removesuffix(".")
    if field.default == ():
        words += "; repeat it"
    elif field.default_factory is None and field.default is not False:
        words += f" ({field.default})"
    return typer.Option(*flags, metavar=metavar, help=f"{words}.", show_default=False)


Concurrency = Annotated[int | None, _setting("max_concurrency", "--max-concurrency", "-c", metavar="N")]
Processes = Annotated[int, typer.Option("--processes", "-p", min=1, metavar="N", help="Worker processes.")]
Children = Annotated[int | None, _setting("max_children", "--max-children", metavar="N")]
MemoryReserve = Annotated[float | None, _setting("memory_reserve", "--memory-reserve", metavar="SHARE")]
TryTimeout = Annotated[str | None, _setting("timeout_s", "--timeout", metavar="SECONDS")]
Retries = Annotated[int | None, _setting("retries", "--retries", metavar="N")]
RetryDelay = Annotated[float | None, _setting("retry_delay_s", "--retry-delay", metavar="SECONDS")]
AllowTarget = Annotated[list[str] | None, _setting("allow_targets", "--allow-target", metavar="NAME")]
AllowCommand = Annotated[list[str] | None, _setting("allow_commands", "--allow-command", metavar="PROGRAM")]
AllowRoot = Annotated[list[str] | None, _setting("allow_roots", "--allow-root", metavar="FOLDER")]
AllowEnv = Annotated[list[str] | None, _setting("allow_env", "--allow-env", metavar="NAME")]
Insecure = Annotated[bool, _setting("insecure", "--insecure")]
Name = Annotated[str | None, _setting("name", "--name", metavar="NAME")]
Namespace = Annotated[str | None, _setting("namespace", "--namespace", metavar="NAME")]
Grace = Annotated[float | None, _setting("grace_s", "--grace", metavar="SECONDS")]
Lease = Annotated[float | None, _setting("lease_s", "--lease", metavar="SECONDS")]
RenewEvery = Annotated[float | None, _setting("renew_every_s", "--renew-every", metavar="SECONDS")]
AnswerTimeout = Annotated[float | None, _setting("answer_timeout_s", "--answer-timeout", metavar="SECONDS")]
Reconnect = Annotated[float | None, _setting("reconnect_s", "--reconnect", metavar="SECONDS")]
LogLevel = Annotated[str | None, _setting("log_level", "--log-level", metavar="LEVEL")]


def up(workers: Workers = None, max_concurrency: Concurrency = None, as_json: Json = False) -> None:
    """Start a server and workers in the foreground.

    Other shells of this user can use them until Ctrl-C.
    """
    run(_up(workers or usable_cores(), max_concurrency, Output(as_json)))


def worker(
    max_concurrency: Concurrency = None,
    processes: Processes = 1,
    max_children: Children = None,
    memory_reserve: MemoryReserve = None,
    timeout: TryTimeout = None,
    retries: Retries = None,
    retry_delay: RetryDelay = None,
    allow_target: AllowTarget = None,
    allow_command: AllowCommand = None,
    allow_root: AllowRoot = None,
    allow_env: AllowEnv = None,
    insecure: Insecure = False,
    name: Name = None,
    namespace: Namespace = None,
    grace: Grace = None,
    lease: Lease = None,
    renew_every: RenewEvery = None,
    answer_timeout: AnswerTimeout = None,
    reconnect: Reconnect = None,
    log_level: LogLevel = None,
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
        max_children=max_children,
        memory_reserve=memory_reserve,
        timeout_s=timeout,
        retries=retries,
        retry_delay_s=retry_delay,
        allow_targets=allow_target,
        allow_commands=allow_command,
        allow_roots=allow_root,
        allow_env=allow_env,
        insecure=insecure or None,
        name=name,
        namespace=namespace,
        grace_s=grace,
        lease_s=lease,
        renew_every_s=renew_every,
        answer_timeout_s=answer_timeout,
        reconnect_s=reconnect,
        log_level=log_level,
    )
    _become([sys.executable, "-m", "fuzzfarm_worker", "supervise", "--processes", str(processes)], _variables(settings))


def workers(redis: Redis = None, as_json: Json = False) -> None:
    """Show the farm: its live workers, and what waits for them."""
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
        reports, queue = await farm.workers(), await farm.queue()
    for report in reports:
        output.record(report)
    output.say(worker_table(reports) if reports else "no workers: start one with `fuzzfarm worker`")
    glance = FarmGlance.of(reports, queue)
    output.record({"farm": glance})
    output.say(farm_line(glance))
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
