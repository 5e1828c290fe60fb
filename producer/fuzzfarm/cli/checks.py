"""What `fuzzfarm doctor` looks at here and on workers: each check says ok, or what is wrong and how to mend it."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version

from fuzzfarm.cli.views import count, percent
from fuzzfarm_shared.broad_lists import warnings_of
from fuzzfarm_shared.reports import WorkerReport
from fuzzfarm_shared.settings import FarmSettings, WorkerHostSettings

PACKAGES = ("fuzzfarm", "arq", "redis", "hypothesis", "msgpack", "pydantic")

CLOCK_WARNING_S = 60.0
"""Clocks that are set by NTP differ by far less, and expiries (a day and more) have an hour to spare."""

NAMED_WORKERS = 3
"""So many workers are named in one line."""


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor.

    Attributes:
        name: what was looked at.
        verdict: how it is.
        message: what was seen, and how to mend it.
    """

    name: str
    verdict: Verdict
    message: str


def host_checks() -> Iterator[Check]:
    """Look at this host."""
    yield Check("versions", Verdict.OK, ", ".join([f"python {platform.python_version()}", *_versions()]))


def trust_checks(settings: FarmSettings) -> Iterator[Check]:
    """Look at what protects the farm from others on the network."""
    if settings.is_local:
        yield Check("encryption", Verdict.OK, "not needed: the server is on this host")
    elif settings.redis_url.startswith("rediss:"):
        yield Check("encryption", Verdict.OK, "TLS")
    else:
        message = "none: use rediss://, or a network that only the farm can reach"
        yield Check("encryption", Verdict.WARNING, message)
    yield _signing(settings)


def list_checks(settings: WorkerHostSettings) -> Iterator[Check]:
    """Look at the allow-lists that a worker would have with the environment of this command."""
    name = "allow-lists here"
    warnings = warnings_of(settings)
    yield from (Check(name, Verdict.WARNING, warning) for warning in warnings)
    if not warnings:
        some = any((settings.allow_targets, settings.allow_commands, settings.allow_roots, settings.allow_env))
        yield Check(name, Verdict.OK, "nothing too broad" if some else "none set in this environment")


def worker_checks(reports: list[WorkerReport]) -> Iterator[Check]:
    """Look at the workers that report."""
    if not reports:
        yield Check("workers", Verdict.WARNING, "none seen: start one with `fuzzfarm worker` on each host")
        return
    slots = sum(report.max_concurrency for report in reports)
    yield Check("workers", Verdict.OK, f"{count(len(reports), 'worker')} on {_hosts(reports)}, {slots:,} slots")
    yield _same("fuzzfarm on workers", {report.version for report in reports}, version("fuzzfarm"))
    yield _same("python on workers", {report.python for report in reports}, platform.python_version())
    yield from _lists_of_workers(reports)
    yield from _memory_of_workers(reports)
    yield from _clocks_of_workers(reports)


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} missing"


def _signing(settings: FarmSettings) -> Check:
    if settings.signer.keys:
        return Check("signing key", Verdict.OK, "set; every host must have the same")
    if settings.is_local:
        return Check("signing key", Verdict.OK, "not set, and not needed while all workers are on this host")
    return Check(
        "signing key",
        Verdict.PROBLEM,
        "not set: whoever can write to the server can run code on workers; set FUZZFARM_SIGNING_KEY on every host",
    )


def _hosts(reports: list[WorkerReport]) -> str:
    return count(len({report.host for report in reports}), "host")


def _same(name: str, found: set[str], ours: str) -> Check:
    if found == {ours}:
        return Check(name, Verdict.OK, ours)
    return Check(name, Verdict.WARNING, f"{', '.join(sorted(found))}, and {ours} here: install the same everywhere")


def _lists_of_workers(reports: list[WorkerReport]) -> Iterator[Check]:
    name = "allow-lists of workers"
    warnings = dict.fromkeys(warning for report in reports for warning in report.warnings)
    for warning in warnings:
        concerned = [report for report in reports if warning in report.warnings]
        yield Check(name, Verdict.WARNING, f"{warning} (on {_named(concerned)})")
    if not warnings:
        yield Check(name, Verdict.OK, "nothing too broad")


def _memory_of_workers(reports: list[WorkerReport]) -> Iterator[Check]:
    free = {report.host: report.memory_free for report in reports if report.under_pressure}
    for host, share in free.items():
        message = (
            f"{host} has {percent(share)} free and its workers take one chunk at a time: "
            "give it more memory, or run fewer workers there"
        )
        yield Check("memory of workers", Verdict.WARNING, message)


def _clocks_of_workers(reports: list[WorkerReport]) -> Iterator[Check]:
    wrong = [report for report in reports if abs(report.clock_ahead_s) > CLOCK_WARNING_S]
    for report in wrong:
        yield clock_check("clocks of workers", f"that of {_named([report])}", report.clock_ahead_s)
    if not wrong:
        yield Check("clocks of workers", Verdict.OK, "as the server's")


def clock_check(name: str, whose: str, ahead_s: float) -> Check:
    """Return what to say of a clock that is `ahead_s` seconds ahead of the server's."""
    if abs(ahead_s) <= CLOCK_WARNING_S:
        return Check(name, Verdict.OK, f"{whose} is as the server's")
    direction = "ahead of" if ahead_s > 0 else "behind"
    message = (
        f"{whose} is {abs(ahead_s):,.0f} s {direction} the server's: let NTP set both, "
        "or operations expire too early and times of outcomes are wrong"
    )
    return Check(name, Verdict.WARNING, message)


def _named(reports: Iterable[WorkerReport]) -> str:
    names = [f"{report.host}, pid {report.pid}" for report in reports]
    more = len(names) - NAMED_WORKERS
    return "; ".join(names[:NAMED_WORKERS]) + (f"; and {count(more, 'more worker')}" if more > 0 else "")
