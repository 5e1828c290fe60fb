import pytest

from fuzzfarm.cli.checks import Verdict, server_checks, trust_checks, worker_checks
from fuzzfarm_shared.settings import FarmSettings

GOOD = {"redis_version": "7.2.4", "valkey_version": "9.1.2", "maxmemory": 0, "used_memory": 1, "aof_enabled": 1}


def verdicts(checks):
    return {check.name: check.verdict for check in checks}


def test_a_good_server_is_all_ok():
    assert set(verdicts(server_checks(GOOD)).values()) == {Verdict.OK}


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
def test_a_server_that_may_lose_work_is_told_apart(change, name, verdict):
    found = verdicts(server_checks({**GOOD, **change}))
    assert found.pop(name) is verdict
    assert set(found.values()) == {Verdict.OK}


def test_a_remote_server_needs_password_tls_and_signing_key():
    bare = verdicts(trust_checks(FarmSettings(redis_url="redis://farm:6379")))
    assert bare == {"password": Verdict.PROBLEM, "encryption": Verdict.WARNING, "signing key": Verdict.PROBLEM}
    settings = FarmSettings(redis_url="rediss://:secret@farm:6379", signing_key="k" * 32)
    assert set(verdicts(trust_checks(settings)).values()) == {Verdict.OK}


def test_no_check_shows_a_secret():
    settings = FarmSettings(redis_url="rediss://:hunter2@farm:6379", signing_key="s" * 32)
    told = "".join(check.message for check in trust_checks(settings))
    assert "hunter2" not in told
    assert "s" * 32 not in told


def test_a_farm_without_workers_is_a_warning():
    assert verdicts(worker_checks([])) == {"workers": Verdict.WARNING}
