"""What the doctor says of what it has seen."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import pytest

from fuzzfarm.cli.checks import Check, Verdict, list_checks, trust_checks, worker_checks
from fuzzfarm.cli.examination import Examination, LastingKeys, User
from fuzzfarm.cli.server_checks import access_checks, server_checks
from fuzzfarm_shared.reports import WorkerReport
from fuzzfarm_shared.settings import FarmSettings, WorkerHostSettings

INFO = {"redis_version": "7.2.4", "valkey_version": "9.1.2", "maxmemory": 0, "used_memory": 1, "aof_enabled": 1}
CONFIG = {"protected-mode": "yes", "bind": "* -::*", "port": "6379", "tls-port": "0", "appendfsync": "everysec"}
OPEN = {**CONFIG, "protected-mode": "no"}
GOOD = Examination(
    info=INFO,
    config=CONFIG,
    needs_password=True,
    user=User("fuzzfarm", may_all=False),
    clock_ahead_s=0.1,
    lasting=LastingKeys((), 12, all_seen=True),
)
REMOTE, LOCAL = FarmSettings(redis_url="redis://farm:6379"), FarmSettings(redis_url="redis://127.0.0.1:6379")


def seen(**changes: Any) -> Examination:
    return dataclasses.replace(GOOD, **changes)


def verdicts(checks: Iterator[Check]) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in checks}


def worker(**changes: Any) -> WorkerReport:
    fields = {
        "name": "apple-12-ab", "host": "apple", "pid": 12, "version": "0.1.0", "python": "3.11.1",
        "max_concurrency": 50, "running": 3, "chunks": 2, "operations_done": 5, "memory_bytes": 52 << 20,
        "load": 1.5, "started_at": 100.0, "reported_at": 200.0, "memory_free": 0.349,
    }  # fmt: skip
    return WorkerReport.model_validate({**fields, **changes})


def messages(checks: Iterator[Check], name: str) -> list[tuple[Verdict, str]]:
    return [(check.verdict, check.message) for check in checks if check.name == name]


def test_a_good_server_is_all_ok() -> None:
    for settings in (REMOTE, LOCAL):
        found = [*server_checks(GOOD), *access_checks(GOOD, settings)]
        assert {check.verdict for check in found} == {Verdict.OK}


@pytest.mark.parametrize(
    ("change", "name", "verdict"),
    [
        ({"valkey_version": "5.0.1"}, "server", Verdict.PROBLEM),
        ({"role": "slave"}, "server", Verdict.PROBLEM),
        ({"cluster_enabled": 1}, "server", Verdict.PROBLEM),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 1 << 30}, "eviction", Verdict.PROBLEM),
        ({"maxmemory_policy": "allkeys-lru"}, "eviction", Verdict.WARNING),
        ({"maxmemory": 100, "used_memory": 90}, "memory", Verdict.WARNING),
        ({"aof_enabled": 0}, "persistence", Verdict.WARNING),
        ({"aof_last_write_status": "err"}, "persistence", Verdict.PROBLEM),
    ],
)
def test_a_server_that_may_lose_work_is_told_apart(change: dict[str, Any], name: str, verdict: Verdict) -> None:
    found = verdicts(server_checks(seen(info={**INFO, **change})))
    assert found.pop(name) is verdict
    assert set(found.values()) == {Verdict.OK}


@pytest.mark.parametrize(
    ("sync", "verdict"), [("always", Verdict.OK), ("everysec", Verdict.OK), ("no", Verdict.WARNING)]
)
def test_what_a_power_failure_costs_is_told(sync: str, verdict: Verdict) -> None:
    assert verdicts(server_checks(seen(config={**CONFIG, "appendfsync": sync})))["persistence"] is verdict
    assert verdicts(server_checks(seen(config=None)))["persistence"] is Verdict.OK


def test_keys_that_stay_for_ever_are_named_but_not_all_of_them() -> None:
    many = tuple(f"ff:{number}" for number in range(5))
    found = [
        messages(server_checks(seen(lasting=lasting)), "expiry")[0]
        for lasting in (
            LastingKeys((), 1, all_seen=True),
            LastingKeys(("ff:a",), 12, all_seen=True),
            LastingKeys(many, 10_000, all_seen=False),
        )
    ]
    mend = "let them expire with `EXPIRE`, or `DEL` them"
    assert found == [
        (Verdict.OK, "all keys of the farm expire (looked at 1 key)"),
        (Verdict.WARNING, f"1 key would stay for ever: ff:a (of 12 keys); {mend}"),
        (
            Verdict.WARNING,
            f"5 keys would stay for ever: ff:0, ff:1, ff:2, ... (of 10,000 keys, and there are more); {mend}",
        ),
    ]


@pytest.mark.parametrize(
    ("ahead_s", "verdict", "words"),
    [
        (59.0, Verdict.OK, "that of this host is as the server's"),
        (-61.0, Verdict.WARNING, "that of this host is 61 s behind the server's: let NTP set both"),
        (7_200.0, Verdict.WARNING, "that of this host is 7,200 s ahead of the server's: let NTP set both"),
    ],
)
def test_a_clock_that_is_wrong_is_a_warning(ahead_s: float, verdict: Verdict, words: str) -> None:
    ((found, message),) = messages(server_checks(seen(clock_ahead_s=ahead_s)), "clock")
    assert found is verdict
    assert message.startswith(words)


@pytest.mark.parametrize(
    ("settings", "config", "verdict", "words"),
    [
        (REMOTE, CONFIG, Verdict.PROBLEM, "lets in whoever reaches it"),
        (REMOTE, None, Verdict.PROBLEM, "lets in whoever reaches it"),
        (LOCAL, CONFIG, Verdict.WARNING, "every user of this host"),
        (LOCAL, None, Verdict.WARNING, "every user of this host"),
        (LOCAL, OPEN, Verdict.PROBLEM, "other hosts can use this server"),
        (LOCAL, {**OPEN, "bind": ""}, Verdict.PROBLEM, "other hosts can use this server"),
        (LOCAL, {**OPEN, "bind": "127.0.0.1 10.0.0.7"}, Verdict.PROBLEM, "other hosts can use this server"),
        (LOCAL, {**OPEN, "port": "0", "tls-port": "6380"}, Verdict.PROBLEM, "other hosts can use this server"),
        (LOCAL, {**OPEN, "bind": "127.0.0.1 -::1"}, Verdict.WARNING, "every user of this host"),
        (LOCAL, {**OPEN, "port": "0"}, Verdict.WARNING, "every user of this host"),
    ],
)
def test_a_server_without_a_password_is_as_bad_as_those_who_reach_it(
    settings: FarmSettings, config: dict[str, str] | None, verdict: Verdict, words: str
) -> None:
    ((found, message),) = messages(access_checks(seen(config=config, needs_password=False), settings), "password")
    assert found is verdict
    assert words in message
    assert "set `requirepass`" in message


def test_a_user_with_all_rights_is_a_warning_that_gives_the_command_for_a_lesser_one() -> None:
    settings = FarmSettings(redis_url="redis://farm:6379", namespace="nightly")
    ((verdict, message),) = messages(access_checks(seen(user=User("default", may_all=True)), settings), "rights")
    assert verdict is Verdict.WARNING
    assert "user default may do everything" in message
    assert "ACL SETUSER fuzzfarm on >PASSWORD ~nightly ~nightly:* ~arq:* +@all -@admin -@dangerous +info" in message
    assert verdicts(access_checks(seen(user=None), settings))["rights"] is Verdict.OK


def test_what_could_not_be_looked_at_is_said() -> None:
    ((verdict, message),) = messages(access_checks(seen(config=None), REMOTE), "settings")
    assert verdict is Verdict.OK
    assert "protected-mode" in message
    assert "settings" not in verdicts(access_checks(GOOD, REMOTE))


def test_a_remote_server_needs_tls_and_a_signing_key() -> None:
    assert verdicts(trust_checks(REMOTE)) == {"encryption": Verdict.WARNING, "signing key": Verdict.PROBLEM}
    settings = FarmSettings(redis_url="rediss://:secret@farm:6379", signing_key="k" * 32)
    assert set(verdicts(trust_checks(settings)).values()) == {Verdict.OK}
    assert set(verdicts(trust_checks(LOCAL)).values()) == {Verdict.OK}


def test_no_check_shows_a_secret() -> None:
    settings = WorkerHostSettings(
        redis_url="rediss://:hunter2@farm:6379", signing_key="s" * 32, allow_targets="*", insecure=True
    )
    bad = seen(needs_password=False, user=User("default", may_all=True))
    checks = [*trust_checks(settings), *access_checks(bad, settings), *list_checks(settings), *server_checks(bad)]
    told = "".join(check.message for check in checks)
    assert "hunter2" not in told
    assert "s" * 32 not in told


def test_allow_lists_of_the_environment_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FUZZFARM_")]:
        monkeypatch.delenv(name)
    assert messages(list_checks(WorkerHostSettings.load()), "allow-lists here") == [
        (Verdict.OK, "none set in this environment")
    ]
    monkeypatch.setenv("FUZZFARM_ALLOW_COMMANDS", "strings")
    assert verdicts(list_checks(WorkerHostSettings.load())) == {"allow-lists here": Verdict.OK}
    monkeypatch.setenv("FUZZFARM_ALLOW_COMMANDS", "strings,bash")
    monkeypatch.setenv("FUZZFARM_ALLOW_TARGETS", "*")
    found = messages(list_checks(WorkerHostSettings.load()), "allow-lists here")
    assert [verdict for verdict, _ in found] == [Verdict.WARNING] * 2
    assert "everything is allowed by FUZZFARM_ALLOW_TARGETS" in found[0][1]
    assert found[1][1].startswith("bash in FUZZFARM_ALLOW_COMMANDS can run any other program: ")


def test_a_farm_without_workers_is_a_warning() -> None:
    assert verdicts(worker_checks([])) == {"workers": Verdict.WARNING}


def test_what_workers_say_of_their_lists_is_told_once_with_the_workers_concerned() -> None:
    some = [worker(pid=pid, warnings=("bash runs all: mend it",)) for pid in (1, 2, 3, 4)]
    found = messages(
        worker_checks([*some, worker(pid=5, warnings=("other",)), worker(pid=6)]), "allow-lists of workers"
    )
    assert found == [
        (
            Verdict.WARNING,
            "bash runs all: mend it (on apple, pid 1; apple, pid 2; apple, pid 3; and 1 more worker)",
        ),
        (Verdict.WARNING, "other (on apple, pid 5)"),
    ]
    assert verdicts(worker_checks([worker()]))["allow-lists of workers"] is Verdict.OK


def test_a_host_that_is_short_of_memory_is_a_warning() -> None:
    short = [worker(pid=pid, under_pressure=True, memory_free=0.04) for pid in (1, 2)]
    message = (
        "apple has 4% free and its workers take one chunk at a time: give it more memory, or run fewer workers there"
    )
    assert messages(worker_checks([*short, worker(host="pear")]), "memory of workers") == [(Verdict.WARNING, message)]


def test_a_worker_whose_clock_is_wrong_is_a_warning() -> None:
    found = messages(worker_checks([worker(clock_ahead_s=-90.0), worker(clock_ahead_s=59.0)]), "clocks of workers")
    assert len(found) == 1
    assert found[0][0] is Verdict.WARNING
    assert found[0][1].startswith("that of apple, pid 12 is 90 s behind the server's: ")
    assert messages(worker_checks([worker()]), "clocks of workers") == [(Verdict.OK, "as the server's")]
