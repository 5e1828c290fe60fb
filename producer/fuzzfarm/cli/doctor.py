"""The command doctor: is this farm set up well?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing

from fuzzfarm.cli.checks import Check, Verdict, host_checks, list_checks, trust_checks, worker_checks
from fuzzfarm.cli.examination import Examination, examine
from fuzzfarm.cli.failures import ExitCode
from fuzzfarm.cli.options import Json, Redis, run
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.server_checks import access_checks, server_checks
from fuzzfarm.farm import Farm
from fuzzfarm_shared.connection import connect, farm_errors
from fuzzfarm_shared.errors import FarmUnreachableError
from fuzzfarm_shared.reports import WorkerReport
from fuzzfarm_shared.settings import WorkerHostSettings

STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}


def doctor(redis: Redis = None, as_json: Json = False) -> None:
    """Check how a farm is set up, and say how to mend it.

    It looks at server, security, workers and versions.
    """
    run(_doctor(WorkerHostSettings.load(redis_url=redis), Output(as_json)))


async def _doctor(settings: WorkerHostSettings, output: Output) -> int:
    show(host_checks(), output)
    try:
        seen, reports = await _look(settings)
    except FarmUnreachableError as exc:
        show(iter([Check("connection", Verdict.PROBLEM, str(exc))]), output)
        return ExitCode.UNREACHABLE
    problems = show(iter([Check("connection", Verdict.OK, settings.safe_url)]), output)
    problems += show(server_checks(seen), output)
    problems += show(access_checks(seen, settings), output)
    problems += show(trust_checks(settings), output)
    problems += show(list_checks(settings), output)
    problems += show(worker_checks(reports), output)
    return ExitCode.FAILURES if problems else ExitCode.CLEAN


async def _look(settings: WorkerHostSettings) -> tuple[Examination, list[WorkerReport]]:
    async with Farm.connect(settings.redis_url) as farm, aclosing(connect(settings)) as client:
        with farm_errors(settings):
            return await examine(client, settings), await farm.workers()


def show(checks: Iterator[Check], output: Output) -> int:
    """Print checks and return how many found a problem."""
    problems = 0
    for check in checks:
        problems += check.verdict is Verdict.PROBLEM
        output.record(check)
        output.say(f"{check.verdict.value:<8} {check.name}: {check.message}", STYLES[check.verdict])
    return problems
