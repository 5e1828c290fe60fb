"""Submitting: payloads go in one after the other, each at most once, whoever sends them again."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from fuzzfarm_shared.errors import BatchNotFoundError
from fuzzfarm_shared.keys import Lane, Part, random_bits
from fuzzfarm_shared.schedule import PLAIN, Schedule, StopReason
from fuzzfarm_shared.store.server import Server

DIGEST_BYTES = 16
"""Of a payload; two different ones collide with a chance of 2**-64 among 2**32 payloads."""

KEY_DIGEST_BYTES = 8
"""Of an operation key; a million keys hold a false duplicate with a chance of 3e-8."""


@dataclass(frozen=True, slots=True)
class EncodedPayload:
    """One payload, ready to be sent.

    Attributes:
        body: the encoded operations, not yet signed.
        operations: how many they are.
        units: examples of a fuzz operation, else operations.
        lane: what a worker needs to run them.
        key_digests: what tells keys apart across payloads; empty where no check on the server is needed.
    """

    body: bytes
    operations: int
    units: int
    lane: Lane
    key_digests: Sequence[bytes] = ()

    @property
    def boundary(self) -> bytes:
        """What the server remembers of this payload: the count and a digest of its operations."""
        return self.operations.to_bytes(4, "big") + blake2b(self.body, digest_size=DIGEST_BYTES).digest()


def key_digest(key: str) -> bytes:
    """Return what stands for an operation key when keys of different payloads are compared."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=KEY_DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server's answer to a submit.

    Attributes:
        status: "ok", "wait" (the queue is full and nothing was done), "conflict" or "duplicate".
        duplicate: place of the digest that was there before; None without a duplicate.
        submit_id: names the submit that made the batch; part of every signature.
        payloads: payloads accepted so far.
        operations: operations accepted so far.
        sealed: whether the batch is complete.
        stop_reason: why it was told to stop; None: it was not.
        depth: chunks that wait on the whole farm.
        deadline_ms: server time at which it is told to stop; 0: never.
    """

    status: str
    duplicate: int | None
    submit_id: str
    payloads: int
    operations: int
    sealed: bool
    stop_reason: StopReason | None
    depth: int
    deadline_ms: int


class SubmissionStore:
    """The producer's way into the store.

    Args:
        server: where it is kept.
        schedule: of the batch; its deadline is counted from the first question to the server.
    """

    def __init__(self, server: Server, schedule: Schedule = PLAIN) -> None:
        self._server = server
        self._priority = schedule.priority
        self._deadline_s = schedule.deadline_s
        self._deadline_ms = 0

    async def deadline_ms(self) -> int:
        """Return the deadline by the server's clock, in ms; 0 without one."""
        if self._deadline_s is not None and not self._deadline_ms:
            self._deadline_ms = int((await self._server.time_s() + self._deadline_s) * 1000)
        return self._deadline_ms

    async def open(self, batch: str) -> Accepted:
        """Create the batch, or return how far an earlier submit of it got."""
        return await self._submit(batch, secrets.token_hex(8))

    async def append(
        self,
        batch: str,
        submit_id: str,
        index: int,
        payload: EncodedPayload,
        envelope: bytes,
        *,
        seal: bool,
        queue_limit: int,
    ) -> Accepted:
        """Add the payload that has place `index`, or find that it is there; `seal` says that it is the last.

        Raises:
            BatchNotFoundError: when the batch was begun and is gone: expired, or lost with its server.
        """
        last = index + 1 if seal else -1
        return await self._submit(
            batch, submit_id, payload=payload, index=index, envelope=envelope, seal=last, queue_limit=queue_limit
        )

    async def seal(self, batch: str, submit_id: str, payloads: int) -> Accepted:
        """Say that the batch consists of its first `payloads` payloads and no more; raises as `append`."""
        return await self._submit(batch, submit_id, seal=payloads)

    async def boundaries(self, batch: str) -> list[tuple[int, bytes]]:
        """Return count and boundary of every accepted payload, in order."""
        name = self._server.settings.keys.batch(batch, Part.BOUNDARIES)
        raw = await self._server.call("LRANGE", name, 0, -1)
        return [(int.from_bytes(boundary[:4], "big"), boundary) for boundary in raw]

    async def _submit(
        self,
        batch: str,
        submit_id: str,
        *,
        payload: EncodedPayload | None = None,
        index: int = -1,
        envelope: bytes = b"",
        seal: int = -1,
        queue_limit: int = 1,
    ) -> Accepted:
        content: tuple[int, bytes, bytes, str, int] = (0, b"", b"", "", 0)
        digests: Sequence[bytes] = ()
        if payload is not None:
            content = (payload.operations, payload.boundary, envelope, payload.lane.value, payload.units)
            digests = payload.key_digests
        ttl_s = self._server.settings.result_ttl_s
        status, kept_id, *numbers = await self._server.run(
            "submit",
            batch,
            submit_id,
            ttl_s,
            queue_limit,
            index,
            *content,
            random_bits(),
            seal,
            self._priority.value,
            await self.deadline_ms(),
            *digests,
        )
        if status == b"lost":
            raise BatchNotFoundError(batch)
        payloads, operations, sealed, reason, depth, deadline_ms = numbers
        word, _, place = status.decode().partition(":")
        duplicate = int(place) if place else None
        self._deadline_s, self._deadline_ms = None, deadline_ms  # that of the first submit holds
        return Accepted(
            word,
            duplicate,
            kept_id.decode(),
            payloads,
            operations,
            sealed == 1,
            StopReason(reason.decode()) if reason else None,
            depth,
            deadline_ms,
        )
