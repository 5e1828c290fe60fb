"""The command doctor: is this farm set up well?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

from fuzzfarm.cli.checks import Check, Verdict, host_checks, server_checks, trust_checks, worker_checks
from fuzzfarm.cli.failures import ExitCode
from fuzzfarm.cli.options import Json, Redis, run
from fuzzfarm.cli.output import Output
from fuzzfarm.farm import Farm
from fuzzfarm_shared.connection import connect, farm_errors
from fuzzfarm_shared.errors import FarmUnreachableError
from fuzzfarm_shared.reports import WorkerReport
from fuzzfarm_shared.settings import FarmSettings, ProducerSettings

STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}


def doctor(redis: Redis = None, as_json: Json = False) -> None:
    """Check how a farm is set up, and say how to mend it.

    It looks at server, security, workers and versions.
    """
    run(_doctor(ProducerSettings.load(redis_url=redis), Output(as_json)))


async def _doctor(settings: ProducerSettings, output: Output) -> int:
    show(host_checks(), output)
    try:
        info, reports = await _examine(settings, settings.redis_url)
    except FarmUnreachableError as exc:
        show(iter([Check("connection", Verdict.PROBLEM, str(exc))]), output)
        return ExitCode.UNREACHABLE
    problems = show(iter([Check("connection", Verdict.OK, settings.safe_url)]), output)
    problems += show(server_checks(info), output)
    problems += show(trust_checks(settings), output)
    problems += show(worker_checks(reports), output)
    return ExitCode.FAILURES if problems else ExitCode.CLEAN


async def _examine(settings: FarmSettings, url: str) -> tuple[dict[str, Any], list[WorkerReport]]:
    async with Farm.connect(url) as farm, aclosing(connect(settings)) as client:
        with farm_errors(settings):
            info: dict[str, Any] = await client.info()
        return info, await farm.workers()


def show(checks: Iterator[Check], output: Output) -> int:
    """Print checks and return how many found a problem."""
    problems = 0
    for check in checks:
        problems += check.verdict is Verdict.PROBLEM
        output.record(check)
        output.say(f"{check.verdict.value:<8} {check.name}: {check.message}", STYLES[check.verdict])
    return problems
