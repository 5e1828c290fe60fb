"""Connections to the server: how they are made, how long a lost one is waited for, and whose error it becomes."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from fuzzfarm_shared.errors import (
    FarmAuthenticationError,
    FarmFullError,
    FarmUnreachableError,
    NotARedisServerError,
)
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.settings import FarmSettings

LONGEST_BLOCK_S = 5.0
"""No command waits on the server for longer, so that a dead connection is noticed."""

FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 1.0

T = TypeVar("T")
log = get_logger(__name__)

LOST = (redis_errors.ConnectionError, redis_errors.TimeoutError, ConnectionError, TimeoutError)
"""What a command raises when the server is away; `BusyLoadingError` (a restarting server) is one of them."""

_REDIS_OS_ERROR = re.compile(r"Error (\d+) ")
"""How redis-py starts its text for an error of the system."""

CREDENTIAL_WORDS = ("noauth", "wrongpass", "invalid password", "invalid username-password", "authentication required")
"""In what servers and redis-py say when a user or password is wrong or missing."""

FULL = "OOM"
LOADING = "LOADING"
REFUSALS = {
    FULL: "is full",
    LOADING: "is still loading its data: try again in a moment",
    "BUSY": "is busy with a script that does not end: stop it with SCRIPT KILL",
    "MASTERDOWN": "is a replica that has lost its primary: bring that back, or connect to another server",
    "MISCONF": "takes no changes because it cannot save its data: give its disk room, and look into its log",
    "NOREPLICAS": "takes no changes because it lacks replicas: bring them back, or lower min-replicas-to-write",
    "READONLY": "is a replica, which takes no changes: connect to its primary",
    "TRYAGAIN": "is moving keys to another server: try again in a moment",
    "UNBLOCKED": "has become a replica just now: connect to its primary",
}
"""What servers refuse only for a while, by the first word of the error, and how it is mended. It is waited for like a
server that is away; with a full one, that is what holds producers back."""

_REFUSED = re.compile(rf"(?:^|[\s'-])({'|'.join(REFUSALS)}) ")
"""That word in an error. Before Redis 7, and in a transaction, there is text in front of it."""

_CLASSES = {redis_errors.OutOfMemoryError: FULL, redis_errors.ReadOnlyError: "READONLY"}
"""Errors that redis-py has stripped of their first word."""

_FINAL = (redis_errors.AuthenticationError, redis_errors.AuthorizationError)
"""Subclasses of redis' ConnectionError that waiting rarely mends."""


def connection_options(settings: FarmSettings) -> dict[str, Any]:
    """Return the options that every client of ours has, async or not."""
    options: dict[str, Any] = {
        "socket_timeout": settings.answer_timeout_s,
        "socket_connect_timeout": settings.connect_timeout_s,
    }
    scheme = urlsplit(settings.redis_url).scheme
    if scheme != "unix":
        options["socket_keepalive"] = True
    if scheme == "rediss":
        options["ssl_check_hostname"] = True
    return options


def longest_block_s(settings: FarmSettings) -> float:
    """Return how long a command may wait on the server: well below the time after which its connection is given up."""
    return min(LONGEST_BLOCK_S, settings.answer_timeout_s / 2)


def connect(settings: FarmSettings) -> Redis:
    """Return a client of the configured server; it connects when it is first used."""
    client: Redis = Redis.from_url(settings.redis_url, **connection_options(settings))
    return client


async def check_server(client: Redis, settings: FarmSettings) -> None:
    """Ask the server for a sign of life, once.

    Raises:
        FarmUnreachableError: when nothing answers; its subclasses when the wrong thing does.
    """
    with farm_errors(settings):
        await client.ping()


@contextmanager
def farm_errors(settings: FarmSettings) -> Iterator[None]:
    """Turn what redis-py raises into our errors; the only place that does."""
    url = settings.safe_url
    try:
        yield
    except (redis_errors.AuthenticationError, redis_errors.AuthorizationError, redis_errors.NoPermissionError) as exc:
        raise FarmAuthenticationError(url, _wrong_password(url, exc)) from exc
    except (redis_errors.InvalidResponse, UnicodeDecodeError) as exc:
        raise NotARedisServerError(
            url, f"what answers at {url} is not a Redis or Valkey server: check host and port"
        ) from exc
    except redis_errors.BusyLoadingError as exc:
        raise FarmUnreachableError(url, f"the server at {url} {REFUSALS[LOADING]}") from exc
    except LOST as exc:
        if _names_credentials(exc):
            raise FarmAuthenticationError(url, _wrong_password(url, exc)) from exc
        raise FarmUnreachableError(
            url, f"no server answers at {url} ({_reason(exc)}): start one, or set FUZZFARM_REDIS_URL or --redis"
        ) from exc
    except redis_errors.ResponseError as exc:
        if refusal := refusal_of(exc):
            sentence = f"the server at {url} {REFUSALS[refusal]}"
            raise (FarmFullError(url) if refusal == FULL else FarmUnreachableError(url, sentence)) from exc
        if _names_credentials(exc):
            raise FarmAuthenticationError(url, _wrong_password(url, exc)) from exc
        if "unknown command" in str(exc).lower():
            raise NotARedisServerError(url, f"the server at {url} lacks a command that fuzzfarm needs: {exc}") from exc
        raise


def refusal_of(exc: BaseException) -> str | None:
    """Return which of `REFUSALS` this error is; None for any other."""
    if not isinstance(exc, redis_errors.ResponseError):
        return None
    found = _REFUSED.search(str(exc))
    return _CLASSES.get(type(exc)) or (found[1] if found else None)


def _wrong_password(url: str, exc: Exception) -> str:
    return f"the server at {url} refused our user name or password ({exc}): put the right one into the address"


def _names_credentials(exc: BaseException) -> bool:
    """Whether the server refused who we are, by its words: on a unix socket redis-py wraps them in another error."""
    words = str(exc).lower()
    return any(word in words for word in CREDENTIAL_WORDS)


def _reason(exc: BaseException) -> str:
    text = str(exc).strip() or type(exc).__name__
    if number := _REDIS_OS_ERROR.match(text):
        return os.strerror(int(number[1])).lower()
    return text.rstrip(".").splitlines()[0]


class Patience:
    """Repeats an idempotent command while the server is away or refuses it, with back-off and jitter; logs that once.

    A wrong password is an error at the first command, and is waited for after the server has let us in once: it, or
    its configuration, is being changed.

    Args:
        settings: where the server is, and `reconnect_s`: how long one command may wait for it.
    """

    def __init__(self, settings: FarmSettings) -> None:
        self._settings = settings
        self._lost_at: float | None = None
        self._waiting: set[object] = set()
        self._was_let_in = False

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        """Return what `command` returns.

        Raises:
            FarmUnreachableError: when the server stayed away, or refused, for `reconnect_s`.
            FarmFullError: when it stayed full for as long.
        """
        waiter = object()
        try:
            return await self._call(command, waiter)
        finally:
            self._waiting.discard(waiter)
            if not self._waiting:
                self._lost_at = None

    async def _call(self, command: Callable[[], Awaitable[T]], waiter: object) -> T:
        give_up_at = time.monotonic() + self._settings.reconnect_s
        cancellations = _cancellations()
        tries = 0
        while True:
            try:
                result = await command()
            except (*LOST, redis_errors.ResponseError) as exc:
                if not self._worth_waiting(exc) or time.monotonic() >= give_up_at:
                    with farm_errors(self._settings):
                        raise
                self._note_loss(exc, waiter)
                await asyncio.sleep(backoff_s(tries))
                tries += 1
            else:
                self._was_let_in = True
                self._note_return(waiter)
                if _cancellations() > cancellations:
                    raise asyncio.CancelledError
                return result

    def _worth_waiting(self, exc: Exception) -> bool:
        if isinstance(exc, _FINAL):
            return self._was_let_in
        return isinstance(exc, LOST) or refusal_of(exc) is not None

    def _note_loss(self, exc: BaseException, waiter: object) -> None:
        self._waiting.add(waiter)
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            log.warning(
                "the server is away, full, or refuses us: waiting for it",
                server=self._settings.safe_url,
                reason=_reason(exc),
            )

    def _note_return(self, waiter: object) -> None:
        """Say so, if this command has waited: of a server that refuses changes, readings tell nothing."""
        if waiter in self._waiting and self._lost_at is not None:
            log.warning("the server is back", waited_s=round(time.monotonic() - self._lost_at, 1))
            self._lost_at = None


def _cancellations() -> int:
    """Return how often this task was asked to stop.

    redis-py sends through `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that meets a result
    (https://github.com/python/cpython/issues/86296); so we ask the task itself after each command.
    """
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def backoff_s(tries: int) -> float:
    """Return how long to wait after `tries` earlier waits: doubling up to a second, the upper half at random."""
    longest: float = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(tries, 10))
    return longest * (0.5 + random.random() / 2)
