from __future__ import annotations

import os
import re
from typing import Any

import pytest

from fuzzfarm_shared.errors import SettingsError
from fuzzfarm_shared.settings import FarmSettings, ProducerSettings, WorkerHostSettings, without_password

CLASSES = [FarmSettings, ProducerSettings, WorkerHostSettings]
KEY = "k" * 40


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FUZZFARM_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_setting_has_a_default_and_a_line_of_help(cls: type[FarmSettings]) -> None:
    cls.load()
    for name, field in cls.model_fields.items():
        assert not field.is_required(), name
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("redis_url", "redis://h:1/2", "redis://h:1/2"),
        ("namespace", "team.a", "team.a"),
        ("lease_s", "4.5", 4.5),
        ("max_concurrency", "7", 7),
        ("timeout_s", "2.5", 2.5),
        ("timeout_s", "none", None),
        ("allow_targets", "a, b.c:d,", ("a", "b.c:d")),
        ("allow_commands", "", ()),
        ("allow_roots", "*", ("*",)),
        ("insecure", "true", True),
    ],
)
def test_a_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any) -> None:
    monkeypatch.setenv(f"FUZZFARM_{name.upper()}", text)
    assert getattr(WorkerHostSettings.load(), name) == value


def test_what_is_given_wins_over_the_environment_and_none_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZZFARM_LEASE_S", "4")
    assert WorkerHostSettings.load(lease_s=9.0).lease_s == 9.0
    assert WorkerHostSettings.load(lease_s=None).lease_s == 4.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("redis_url", "http://h"),
        ("redis_url", "localhost:6379"),
        ("redis_url", "redis://h:port"),
        ("redis_url", "redis://h:99999"),
        ("namespace", "a b"),
        ("namespace", ""),
        ("signing_key", "too short"),
        ("signing_key", f"{KEY},short"),
        ("signing_key", ""),
        ("signing_key", " , "),
        ("result_ttl_s", "1"),
        ("result_ttl_s", "soon"),
        ("max_concurrency", "0"),
        ("lease_s", "-1"),
        ("log_level", "loud"),
        ("insecure", "perhaps"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"FUZZFARM_{name.upper()}", text)
    with pytest.raises(SettingsError, match=re.escape(f"FUZZFARM_{name.upper()}")) as caught:
        WorkerHostSettings.load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "renew_every_s"),
    [
        ({}, 1.0),
        ({"lease_s": 0.6}, 0.2),
        ({"lease_s": 600}, 1.0),
        ({"lease_s": 2, "renew_every_s": 1}, 1.0),
        ({"renew_every_s": 1.5}, 1.5),
    ],
)
def test_a_lease_is_renewed_several_times_unless_said_otherwise(given: dict[str, Any], renew_every_s: float) -> None:
    assert WorkerHostSettings.load(**given).renew_every_s == pytest.approx(renew_every_s)


@pytest.mark.parametrize("given", [{"renew_every_s": 3}, {"lease_s": 1, "renew_every_s": 0.6}])
def test_a_lease_that_ends_before_its_second_renewal_is_refused(given: dict[str, Any]) -> None:
    sentence = r"FUZZFARM_RENEW_EVERY_S\): .* is more than half of a lease \(.* s\): set .*, or unset it$"
    with pytest.raises(SettingsError, match=sentence):
        WorkerHostSettings.load(**given)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(SettingsError, match="no_such"):
        ProducerSettings.load(no_such=1)


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZZFARM_SIGNING_KEY", KEY)
    monkeypatch.setenv("FUZZFARM_REDIS_URL", "redis://me:hunter2@h/0")
    settings = WorkerHostSettings.load()
    for text in (repr(settings), str(settings), settings.safe_url, repr(settings.signer)):
        assert "hunter2" not in text
        assert KEY not in text


@pytest.mark.parametrize("url", ["http://me:hunter2@h", "redis://me:hunter2@h:port", "redis://:hunter2/x@h"])
def test_an_error_about_the_address_does_not_show_its_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("FUZZFARM_REDIS_URL", url)
    with pytest.raises(SettingsError) as caught:
        FarmSettings.load()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://me@h", "redis://me@h"),
        ("redis://me:pw@h:1/0", "redis://me:***@h:1/0"),
        ("redis://:pw@h", "redis://:***@h"),
        ("redis://:p@w@h", "redis://:***@h"),
        ("redis://:p/w@h", "redis://:***@h"),
        ("unix:///tmp/a@b.sock", "unix:///tmp/a@b.sock"),
        ("unix:///s.sock?db=1&password=pw", "unix:///s.sock?db=1&password=***"),
        ("unix:///s.sock?password=p@w&db=1", "unix:///s.sock?password=***&db=1"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_several_keys_sign_with_the_first_and_accept_all() -> None:
    old, new = "o" * 32, "n" * 32
    envelope = FarmSettings.load(signing_key=old).signer.seal(b"x", ("c",))
    assert FarmSettings.load(signing_key=f" {new} , {old} ").signer.open(envelope, ("c",)) == b"x"
    assert FarmSettings.load(signing_key=f"{new},{old}").signer.keys[0] == new.encode()


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("unix:///run/s", True),
        ("redis:///0", True),
        ("redis://localhost", True),
        ("redis://127.0.0.1:1/0", True),
        ("redis://127.8.0.1", True),
        ("redis://[::1]:1", True),
        ("redis://0:1", False),
        ("redis://10.0.0.1", False),
        ("rediss://example.org", False),
        ("redis://localhost.example.org", False),
        ("redis://localhost@example.org", False),
    ],
)
def test_only_this_host_is_local(url: str, local: bool) -> None:
    assert FarmSettings(redis_url=url).is_local is local
