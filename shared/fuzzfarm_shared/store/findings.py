"""Findings of all batches: kept by target, each with a life of its own, and written together with a commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import msgpack

from fuzzfarm_shared.errors import CodecError, SignatureError
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.merging import rank
from fuzzfarm_shared.outcomes import MAX_HOSTS, Finding
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store.server import Server
from fuzzfarm_shared.values import pack, unpack

MAX_FINDINGS = 1_000
"""Findings kept of one target, those seen last; a target with more needs a repair."""

MAX_RECORD_BYTES = 128 * 1024
"""Of one finding: all texts at their limits in ASCII, and what most choices take."""

TEXT_LIMITS = (8_000, 1_000)
"""Characters of each long text that are kept of a finding that is larger; the second after the first."""

_LONG_TEXTS = ("example", "traceback", "output", "message")

FINDINGS_PER_READ = 50
"""Fetched at once: 6 MB at most."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a commit tells of one finding; finding.lua names the fields in this order.

    Attributes:
        target: the target that failed.
        id: of the finding.
        envelope: the signed finding.
        rank: sorts sightings by their example.
        count: how often it was seen since the last commit.
        first_s: first time, seconds since the epoch.
        last_s: last time.
        host: where.
        replays: how often the example was run again; 0: not yet.
        failures: how often it failed then.
        examine: 1 to have it examined, once for its operation; else 0.
    """

    target: str
    id: str
    envelope: bytes
    rank: str
    count: int
    first_s: float
    last_s: float
    host: str
    replays: int
    failures: int
    examine: int


def finding_context(target: str, identifier: str) -> tuple[str, ...]:
    """Return what the signature of a finding is bound to."""
    return ("finding", target, identifier)


def sighting(finding: Finding, host: str, signer: Signer, *, examine: bool = False) -> Sighting:
    """Return what a commit tells of a finding that was seen on `host`, and whether it is to be examined."""
    return Sighting(
        target=finding.target,
        id=finding.id,
        envelope=signer.seal(_bounded(finding), finding_context(finding.target, finding.id)),
        rank=rank(finding),
        count=finding.count,
        first_s=finding.first_seen,
        last_s=finding.last_seen,
        host=host,
        replays=finding.replays,
        failures=finding.replay_failures,
        examine=int(examine),
    )


def sighting_arguments(sightings: Sequence[Sighting], ttl_s: int) -> list[str | float | bytes]:
    """Return how the commit script takes sightings: the limits, then the fields of each."""
    fields = [field for seen in sightings for field in astuple(seen)]
    return [ttl_s, MAX_FINDINGS, MAX_HOSTS, *fields]


def _bounded(finding: Finding) -> bytes:
    """Return a finding as bytes, its longest texts cut where it is too large, at last without choices or even input."""
    for limit in TEXT_LIMITS:
        body = pack(finding)
        if len(body) <= MAX_RECORD_BYTES:
            return body
        finding = replace(finding, **{name: getattr(finding, name)[:limit] for name in _LONG_TEXTS})
    without: dict[str, Any] = {}
    for more in ({}, {"choices": b""}, {"input": None}):
        without |= more
        body = pack(replace(finding, **without))
        if len(body) <= MAX_RECORD_BYTES:
            break
    return body


def open_finding(envelope: bytes, target: str, identifier: str, signer: Signer) -> Finding:
    """Return the finding that an envelope holds.

    Raises:
        CodecError: when it holds no finding of this name.
        SignatureError: when it is not signed as this side requires.
    """
    finding = unpack(signer.open(envelope, finding_context(target, identifier)))
    if not isinstance(finding, Finding) or (finding.target, finding.id) != (target, identifier):
        raise CodecError("it holds no finding of this name")
    return finding


class FindingStore:
    """What anyone may ask of the findings of a farm; workers write them with their commits."""

    def __init__(self, server: Server, signer: Signer) -> None:
        self._server = server
        self._signer = signer
        self._keys = server.settings.keys

    async def read(self, target: str | None = None) -> list[Finding]:
        """Return the findings of a target, or of all, those seen last first.

        What does not carry our signature is left out, and logged.

        Raises:
            FarmUnreachableError: when the server stays away.
        """
        targets = await self._targets() if target is None else [target]
        found = [finding for name in targets for finding in await self._of(name, await self._ids(name))]
        return sorted(found, key=lambda finding: (-finding.last_seen, finding.id))

    async def named(self, beginning: str) -> list[Finding]:
        """Return the findings whose id begins so, or the one with this id; raises as `read`."""
        found: list[Finding] = []
        for target in await self._targets():
            ids = [name for name in await self._ids(target) if name.startswith(beginning)]
            found += await self._of(target, ids)
        return [finding for finding in found if finding.id == beginning] or found

    async def forget(self, finding: Finding) -> bool:
        """Forget a finding and return whether it was known; seen again, it is new. Raises as `read`."""
        return bool(await self._server.run("forget", finding.target, finding.id))

    async def _targets(self) -> list[str]:
        return [raw.decode() for raw in await self._server.call("ZREVRANGE", self._keys.findings, 0, -1)]

    async def _ids(self, target: str) -> list[str]:
        oldest_ms = int((await self._server.time_s() - self._server.settings.findings_ttl_s) * 1000)
        reply = await self._server.call("ZRANGEBYSCORE", self._keys.findings_seen(target), oldest_ms, "+inf")
        return [raw.decode() for raw in reply]

    async def _of(self, target: str, ids: Sequence[str]) -> list[Finding]:
        found: list[Finding] = []
        for start in range(0, len(ids), FINDINGS_PER_READ):
            some = ids[start : start + FINDINGS_PER_READ]
            records = await self._server.call("HMGET", self._keys.findings_of(target), *some)
            found += self._opened(target, zip(some, records, strict=True))
        return found

    def _opened(self, target: str, records: Iterable[tuple[str, bytes | None]]) -> Iterable[Finding]:
        for identifier, record in records:
            try:
                if record is not None:
                    yield self._open(record, target, identifier)
            except (CodecError, SignatureError) as exc:
                log.warning("a finding was refused", target=target, finding=identifier, reason=str(exc))

    def _open(self, record: bytes, target: str, identifier: str) -> Finding:
        kept = _fields(record)
        return replace(
            open_finding(kept[b"e"], target, identifier, self._signer),
            count=int(kept[b"n"]),
            first_seen=float(kept[b"a"]),
            last_seen=float(kept[b"z"]),
            hosts=tuple(host.decode() for host in kept[b"h"]),
            replays=int(kept[b"p"]),
            replay_failures=int(kept[b"q"]),
        )


def _fields(record: bytes) -> dict[bytes, Any]:
    """Return the fields of a record; CodecError when they are not what finding.lua writes."""
    try:
        kept = msgpack.unpackb(record, raw=True)
        kept[b"h"] = list(kept[b"h"])
        return {name: kept[name] for name in (b"e", b"n", b"a", b"z", b"h", b"p", b"q")}
    except (ValueError, TypeError, LookupError, msgpack.UnpackException) as exc:
        raise CodecError(f"it is no record of a finding: {exc}") from exc
