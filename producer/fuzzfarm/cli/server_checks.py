"""What `fuzzfarm doctor` says of a server: may it lose work, and whom does it let in?"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from fuzzfarm.cli.checks import Check, Verdict, clock_check
from fuzzfarm.cli.examination import SHOWN_SETTINGS, Examination, LastingKeys
from fuzzfarm.cli.views import count, size
from fuzzfarm_shared.settings import FarmSettings

OLDEST_SERVER = (6, 2)
"""First version with SMISMEMBER, which tells duplicate keys."""

MEMORY_WARNING = 0.8
"""Share of the server's memory limit above which results may soon be refused."""

NAMED_KEYS = 3
"""So many keys are named in one line."""


def server_checks(seen: Examination) -> Iterator[Check]:
    """Look at whether the server may lose work, and whether it fills up."""
    yield _server_version(seen.info)
    yield _eviction(seen.info)
    yield _memory(seen.info)
    yield _persistence(seen.info, seen.config or {})
    yield _expiry(seen.lasting)
    yield clock_check("clock", "that of this host", seen.clock_ahead_s)


def access_checks(seen: Examination, settings: FarmSettings) -> Iterator[Check]:
    """Look at whom the server lets in, and what they may do."""
    if settings.is_private:
        yield Check("access", Verdict.OK, "only this user can reach the server's socket")
        return
    yield _password(seen, settings)
    if seen.config is None:
        unseen = ", ".join(SHOWN_SETTINGS)
        yield Check("settings", Verdict.OK, f"this user may not read them, so {unseen} were not looked at")
    yield _rights(seen, settings.namespace)


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


def _persistence(info: Mapping[str, Any], config: Mapping[str, str]) -> Check:
    name = "persistence"
    if not int(info.get("aof_enabled", 0)):
        return Check(name, Verdict.WARNING, "a restart of the server loses batches: set `appendonly yes` to keep them")
    if info.get("aof_last_write_status", "ok") != "ok":
        return Check(name, Verdict.PROBLEM, "the append-only file cannot be written: look at the server's disk")
    sync = config.get("appendfsync")
    if sync == "no":
        message = "a power failure may cost the last half a minute: set `appendfsync everysec` on the server"
        return Check(name, Verdict.WARNING, message)
    return Check(name, Verdict.OK, f"append-only file, appendfsync {sync}" if sync else "append-only file")


def _expiry(lasting: LastingKeys) -> Check:
    seen = count(lasting.seen, "key") + ("" if lasting.all_seen else ", and there are more")
    if not lasting.names:
        return Check("expiry", Verdict.OK, f"all keys of the farm expire (looked at {seen})")
    some = ", ".join(lasting.names[:NAMED_KEYS]) + (", ..." if len(lasting.names) > NAMED_KEYS else "")
    number = count(len(lasting.names), "key")
    message = f"{number} would stay for ever: {some} (of {seen}); let them expire with `EXPIRE`, or `DEL` them"
    return Check("expiry", Verdict.WARNING, message)


def _password(seen: Examination, settings: FarmSettings) -> Check:
    if seen.needs_password:
        return Check("password", Verdict.OK, "the server lets nobody in without one")
    mend = "set `requirepass` on it, and put the password into FUZZFARM_REDIS_URL"
    if not settings.is_local:
        message = f"the server lets in whoever reaches it without one: {mend}"
        return Check("password", Verdict.PROBLEM, message)
    if _is_open(seen.config or {}):
        message = f"other hosts can use this server without one, and run code on its workers: {mend}"
        return Check("password", Verdict.PROBLEM, message)
    message = f"every user of this host can use the server without one: {mend}"
    return Check("password", Verdict.WARNING, message)


def _is_open(config: Mapping[str, str]) -> bool:
    """Return whether a server without a password takes connections of other hosts."""
    listens = any(config.get(port, "0") != "0" for port in ("port", "tls-port"))
    addresses = config.get("bind", "").split() or ["*"]
    return listens and config.get("protected-mode") == "no" and not all(map(_is_loopback, addresses))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.removeprefix("-")).is_loopback
    except ValueError:
        return address == "localhost"


def _rights(seen: Examination, namespace: str) -> Check:
    if seen.user is None:
        return Check("rights", Verdict.OK, "the server does not say what this user may do")
    if not seen.user.may_all:
        return Check("rights", Verdict.OK, f"user {seen.user.name} may not do everything on the server")
    user = f"ACL SETUSER fuzzfarm on >PASSWORD ~{namespace} ~{namespace}:* ~arq:* +@all -@admin -@dangerous +info"
    message = f"user {seen.user.name} may do everything on the server: give the farm a user of its own with `{user}`"
    return Check("rights", Verdict.WARNING, message)
