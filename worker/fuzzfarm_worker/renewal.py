"""Leases are renewed by a thread, so that a busy event loop does not lose its chunks.

A C call that holds the interpreter for longer than a lease still loses them: such code belongs into a child.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from redis import Redis
from redis.exceptions import NoScriptError, RedisError

from fuzzfarm_shared.connection import LOST, connection_options, longest_block_s
from fuzzfarm_shared.keys import AttemptId
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_shared.store.attempts import renew_arguments
from fuzzfarm_shared.store.server import digest, source

log = get_logger(__name__)


class LeaseEnd(Enum):
    """Why a lease asks its chunk to stop, in the words of the renew script."""

    LOST = b"lost"
    CANCELLED = b"cancelled"
    DEADLINE = b"deadline"


_ENDS = {end.value: end for end in LeaseEnd}
_WATCHED = b"watched"


@dataclass(slots=True)
class Lease:
    """One chunk that this worker holds.

    Attributes:
        attempt: which chunk.
        on_end: called once in the event loop when the lease was lost, and once when the batch is said to be stopped.
        watched: whether somebody looks at the progress of its jobs.
        deadline: monotonic time after which the worker is hung and must not keep the chunk; None: no limit.
        told: why the lease last asked to stop, once it has.
    """

    attempt: AttemptId
    on_end: Callable[[LeaseEnd], None]
    deadline: float | None = None
    watched: bool = False
    told: LeaseEnd | None = None

    def end(self, reason: LeaseEnd) -> None:
        """Ask the chunk to stop, once for each reason."""
        if self.told is not LeaseEnd.LOST and reason is not self.told:
            self.told = reason
            self.on_end(reason)


class RenewalThread:
    """Renews the leases of this worker while its context is open; kills the worker when one is past its deadline."""

    def __init__(self, settings: WorkerHostSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._loop = loop
        self._leases: dict[AttemptId, Lease] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._seen: bytes | str = "$"
        self._was_told = False
        self._renew_every_ms = max(1, int(min(settings.renew_every_s, longest_block_s(settings)) * 1000))
        self._thread = threading.Thread(target=self._run, name="fuzzfarm-renewal", daemon=True)
        self._client: Redis = Redis.from_url(settings.redis_url, **connection_options(settings))

    def __enter__(self) -> Self:
        """Start renewing."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop renewing; what is held then runs out."""
        self._stopped.set()
        self._thread.join(timeout=1.0)
        self._client.close()

    def hold(self, lease: Lease) -> None:
        """Renew this lease from now on."""
        with self._lock:
            self._leases[lease.attempt] = lease

    def release(self, lease: Lease) -> None:
        """Renew it no longer."""
        with self._lock:
            self._leases.pop(lease.attempt, None)

    def _run(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                leases = list(self._leases.values())
            self._end_if_hung(leases)
            if leases:
                self._renew(leases)
                self._wait_for_a_stop()
            else:
                self._stopped.wait(self._settings.renew_every_s)

    def _wait_for_a_stop(self) -> None:
        """Return when a batch was told to stop, or when it is time to renew."""
        try:
            told: Any = self._client.xread({self._settings.keys.stops: self._seen}, block=self._renew_every_ms)
        except RedisError as exc:
            log.debug("no word of batches that were told to stop", reason=str(exc))
            self._stopped.wait(self._settings.renew_every_s)
            return
        for _, entries in told:
            self._seen = entries[-1][0]

    def _renew(self, leases: list[Lease]) -> None:
        arguments = renew_arguments(self._settings.lease_s, [lease.attempt for lease in leases])
        try:
            replies = self._evaluate(arguments)
        except LOST as exc:
            log.debug("leases could not be renewed", reason=str(exc))
            return
        except RedisError as exc:  # a full server, for one: a later renewal may find it mended
            self._tell_once(exc)
            return
        self._was_told = False
        for lease, reply in zip(leases, replies, strict=True):
            lease.watched = reply == _WATCHED
            if reply in _ENDS and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(lease.end, _ENDS[reply])

    def _tell_once(self, exc: RedisError) -> None:
        """Log why the server renews no leases, once until it does again."""
        level = log.debug if self._was_told else log.warning
        level("leases could not be renewed", reason=str(exc))
        self._was_told = True

    def _evaluate(self, arguments: list[Any]) -> list[bytes]:
        namespace = self._settings.namespace
        try:
            replies: Any = self._client.evalsha(digest("renew"), 1, namespace, *arguments)
        except NoScriptError:
            replies = self._client.eval(source("renew"), 1, namespace, *arguments)
        return list(replies)

    def _end_if_hung(self, leases: list[Lease]) -> None:
        now = time.monotonic()
        late = next((lease for lease in leases if lease.deadline is not None and now > lease.deadline), None)
        if late is not None:
            log.error(
                "an operation hangs past its limit and blocks this worker, which ends now", chunk=str(late.attempt)
            )
            os.kill(os.getpid(), signal.SIGKILL)
