"""What `fuzzfarm doctor` looks at: each check says ok, or what is wrong and how to mend it."""

from __future__ import annotations

import ipaddress
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from fuzzfarm.cli.views import count, size
from fuzzfarm_shared.reports import WorkerReport
from fuzzfarm_shared.settings import FarmSettings

OLDEST_SERVER = (6, 2)
"""First version with SMISMEMBER, which tells duplicate keys."""

PACKAGES = ("fuzzfarm", "arq", "redis", "hypothesis", "msgpack", "pydantic")

MEMORY_WARNING = 0.8
"""Share of the server's memory limit above which results may soon be refused."""


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


def server_checks(info: Mapping[str, Any]) -> Iterator[Check]:
    """Look at what the server says of itself (INFO)."""
    yield _server_version(info)
    yield _eviction(info)
    yield _memory(info)
    yield _persistence(info)


def trust_checks(settings: FarmSettings) -> Iterator[Check]:
    """Look at what protects the farm from others on the network."""
    url = urlsplit(settings.redis_url)
    if is_local(settings.redis_url):
        yield Check("trust", Verdict.OK, "the server is on this host")
    else:
        yield _password(url.password)
        yield _encryption(url.scheme)
    yield _signing(settings)


def worker_checks(reports: list[WorkerReport]) -> Iterator[Check]:
    """Look at the workers that report."""
    if not reports:
        yield Check("workers", Verdict.WARNING, "none seen: start one with `fuzzfarm worker` on each host")
        return
    slots = sum(report.max_concurrency for report in reports)
    yield Check("workers", Verdict.OK, f"{count(len(reports), 'worker')} on {_hosts(reports)}, {slots:,} slots")
    yield _same("fuzzfarm on workers", {report.version for report in reports}, version("fuzzfarm"))
    yield _same("python on workers", {report.python for report in reports}, platform.python_version())


def is_local(url: str) -> bool:
    """Return whether only this host can be meant by a server's address."""
    parts = urlsplit(url)
    if parts.scheme == "unix" or parts.hostname is None or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} missing"


def _server_version(info: Mapping[str, Any]) -> Check:
    name = "Valkey" if "valkey_version" in info else "Redis"
    text = str(info.get("valkey_version") or info.get("redis_version", "0"))
    if tuple(int(part) for part in text.split(".")[:2] if part.isdigit()) < OLDEST_SERVER:
        return Check("server", Verdict.PROBLEM, f"{name} {text} is too old: install Redis 6.2 or later, or Valkey")
    if info.get("role", "master") != "master":
        return Check("server", Verdict.PROBLEM, f"{name} {text} is a replica and takes no writes: use the primary")
    if info.get("cluster_enabled"):
        return Check("server", Verdict.PROBLEM, f"{name} {text} runs as a cluster: use a single server")
    return Check("server", Verdict.OK, f"{name} {text}")


def _eviction(info: Mapping[str, Any]) -> Check:
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return Check("eviction", Verdict.OK, "noeviction")
    message = f"{policy} may drop operations and results: set `maxmemory-policy noeviction` on the server"
    limited = int(info.get("maxmemory", 0)) > 0
    return Check("eviction", Verdict.PROBLEM if limited else Verdict.WARNING, message)


def _memory(info: Mapping[str, Any]) -> Check:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not limit:
        return Check("memory", Verdict.OK, f"{size(used)} used, no limit set")
    text = f"{size(used)} of {size(limit)} used"
    if used < MEMORY_WARNING * limit:
        return Check("memory", Verdict.OK, text)
    return Check("memory", Verdict.WARNING, f"{text}: raise maxmemory, or lower FUZZFARM_RESULT_TTL_S")


def _persistence(info: Mapping[str, Any]) -> Check:
    if int(info.get("aof_enabled", 0)):
        failed = info.get("aof_last_write_status", "ok") != "ok"
        message = "the append-only file cannot be written: look at the server's disk" if failed else "append-only file"
        return Check("persistence", Verdict.PROBLEM if failed else Verdict.OK, message)
    return Check(
        "persistence", Verdict.WARNING, "a restart of the server loses batches: set `appendonly yes` to keep them"
    )


def _password(password: str | None) -> Check:
    if password:
        return Check("password", Verdict.OK, "given")
    return Check(
        "password", Verdict.PROBLEM, "a remote server without one: set `requirepass`, and write redis://:PASSWORD@HOST"
    )


def _encryption(scheme: str) -> Check:
    if scheme == "rediss":
        return Check("encryption", Verdict.OK, "TLS")
    return Check("encryption", Verdict.WARNING, "none: use rediss://, or a network that only the farm can reach")


def _signing(settings: FarmSettings) -> Check:
    if settings.signer.keys:
        return Check("signing key", Verdict.OK, "set; every host must have the same")
    if is_local(settings.redis_url):
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
