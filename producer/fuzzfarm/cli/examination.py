"""What `fuzzfarm doctor` asks of a server: only readings, and nothing secret."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from fuzzfarm_shared.arq_queue import IN_PROGRESS_PREFIX, JOB_PREFIX, RETRY_PREFIX
from fuzzfarm_shared.connection import check_server, connect
from fuzzfarm_shared.errors import FarmAuthenticationError
from fuzzfarm_shared.settings import FarmSettings

MOST_KEYS = 10_000
"""Keys looked at of each kind, so that a large server is not held up."""

KEYS_AT_ONCE = 1_000

SHOWN_SETTINGS = ("protected-mode", "bind", "port", "tls-port", "appendfsync")

_ATTEMPT = re.compile(r".+/\d+@\d+-[0-9a-f]{16}")
"""Ids of our jobs (keys.AttemptId): other programs may use arq on the same server."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class User:
    """Who we are on the server.

    Attributes:
        name: of the user.
        may_all: it may run all commands on all keys.
    """

    name: str
    may_all: bool


@dataclass(frozen=True, slots=True)
class LastingKeys:
    """Keys of the farm that would stay for ever.

    Attributes:
        names: those found.
        seen: keys of the farm that were looked at.
        all_seen: there are no others.
    """

    names: tuple[str, ...]
    seen: int
    all_seen: bool


@dataclass(frozen=True, slots=True)
class Examination:
    """One server, as far as our user may see.

    Attributes:
        info: what it says of itself (INFO).
        config: those of `SHOWN_SETTINGS` that it has; None when we may not ask.
        needs_password: it lets nobody in without one.
        user: who we are; None when it does not say.
        clock_ahead_s: seconds that the clock of this host is ahead of the server's.
        lasting: keys of the farm without an expiry.
    """

    info: Mapping[str, Any]
    config: Mapping[str, str] | None
    needs_password: bool
    user: User | None
    clock_ahead_s: float
    lasting: LastingKeys


async def examine(client: Redis, settings: FarmSettings) -> Examination:
    """Ask the server of `client`.

    Raises:
        FarmUnreachableError: when it cannot be asked for a second connection.
        RedisError: when it does not answer on the first.
    """
    return Examination(
        info=await client.info(),
        config=await _config(client),
        needs_password=await _needs_password(settings),
        user=await _user(client),
        clock_ahead_s=await _clock_ahead_s(client),
        lasting=await _lasting_keys(client, settings.namespace),
    )


async def _permitted(question: Awaitable[T]) -> T | None:
    """Return the answer to a question; None where our user may not ask, or the server has no such command."""
    try:
        return await question
    except redis_errors.NoPermissionError:
        return None
    except redis_errors.ResponseError as exc:
        if "unknown command" in str(exc).lower():  # renamed, as managed servers do
            return None
        raise


async def _config(client: Redis) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for name in SHOWN_SETTINGS:  # older servers take one name at a time
        answer: dict[str, str] | None = await _permitted(client.config_get(name))
        if answer is None:
            return None
        found.update(answer)
    return found


async def _needs_password(settings: FarmSettings) -> bool:
    """Return whether the server refuses a connection that says neither user nor password."""
    stranger = connect(settings)
    for credential in ("username", "password"):
        stranger.connection_pool.connection_kwargs.pop(credential, None)
    try:
        await check_server(stranger, settings)
    except FarmAuthenticationError:
        return True
    finally:
        await stranger.aclose()
    return False


async def _user(client: Redis) -> User | None:
    ask: Any = client.execute_command
    name = await _permitted(ask("ACL", "WHOAMI"))
    if name is None:
        return None
    rights = await _permitted(ask("ACL", "GETUSER", name))
    return User(name.decode(), may_all=rights is not None and _may_all(rights))


def _may_all(reply: list[Any]) -> bool:
    """Return whether rights as ACL GETUSER tells them are all; versions tell keys as a list or as words."""
    rights = dict(zip(map(bytes.decode, reply[::2]), reply[1::2], strict=True))
    commands = rights["commands"].decode().split()
    keys = rights["keys"] if isinstance(rights["keys"], list) else rights["keys"].split()
    return commands == ["+@all"] and bool({b"*", b"~*"} & set(keys))


async def _clock_ahead_s(client: Redis) -> float:
    before = time.time()
    answer: tuple[int, int] = await client.time()
    return (before + time.time()) / 2 - answer[0] - answer[1] / 1_000_000


async def _lasting_keys(client: Redis, namespace: str) -> LastingKeys:
    ours, all_ours = await _scan(client, f"{namespace}:*")
    jobs, all_jobs = await _scan(client, "arq:*")
    names = [*ours, *filter(_is_our_job, jobs)]
    lasting: list[str] = []
    for first in range(0, len(names), KEYS_AT_ONCE):
        some = names[first : first + KEYS_AT_ONCE]
        pipeline = client.pipeline(transaction=False)
        for name in some:
            pipeline.ttl(name)
        lasting += [name for name, ttl_s in zip(some, await pipeline.execute(), strict=True) if ttl_s == -1]
    return LastingKeys(tuple(sorted(lasting)), len(names), all_ours and all_jobs)


async def _scan(client: Redis, pattern: str) -> tuple[set[str], bool]:
    """Return names that fit `pattern` among the first `MOST_KEYS` on the server, and whether there are no more."""
    names: set[str] = set()
    cursor = 0
    for _ in range(MOST_KEYS // KEYS_AT_ONCE):
        cursor, found = await client.scan(cursor, match=pattern, count=KEYS_AT_ONCE)
        names.update(name.decode(errors="replace") for name in found)
        if cursor == 0:
            return names, True
    return names, False


def _is_our_job(name: str) -> bool:
    prefix = next(
        (prefix for prefix in (JOB_PREFIX, IN_PROGRESS_PREFIX, RETRY_PREFIX) if name.startswith(prefix)), None
    )
    return prefix is not None and _ATTEMPT.fullmatch(name.removeprefix(prefix)) is not None
