"""Findings of shards that are recorded already, while their fuzz operation still runs: for progress and for Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from redis.asyncio import Redis

from fuzzfarm_shared.connection import connect
from fuzzfarm_shared.keys import Part
from fuzzfarm_shared.outcomes import Finding, FuzzResult
from fuzzfarm_shared.settings import ProducerSettings
from fuzzfarm_shared.settling import partial_context
from fuzzfarm_shared.store import Server
from fuzzfarm_shared.values import unpack

TARGETS_PER_READ = 16
"""Each costs one request, and readings come several times a second."""


class EarlyFindings:
    """Reads the results of shards as they come; an async context manager with a connection of its own.

    Args:
        settings: those of the farm.
        batch: key of a batch of fuzz operations only, each of which is one payload.
        targets: their keys, in the order of their submission.
    """

    def __init__(self, settings: ProducerSettings, batch: str, targets: Sequence[str]) -> None:
        self._settings = settings
        self._batch = batch
        self._targets = targets
        self._next = 0
        self._read = [0] * len(targets)
        self._stack = AsyncExitStack()
        self.results: dict[str, FuzzResult] = {}

    async def __aenter__(self) -> Self:
        client: Redis = connect(self._settings)
        self._stack.push_async_callback(client.aclose)
        self._server = Server(client, self._settings)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def findings(self) -> set[str]:
        """Ids of all findings so far."""
        return {finding.id for result in self.results.values() for finding in result.findings}

    async def read(self) -> list[Finding]:
        """Look at the next few targets in turn, and return the findings that are new.

        Raises:
            FarmUnreachableError: when the server stays away.
        """
        known = self.findings
        turn = [(self._next + step) % len(self._targets) for step in range(min(TARGETS_PER_READ, len(self._targets)))]
        self._next = (turn[-1] + 1) % len(self._targets)
        await self._read_payloads(turn)
        found = {finding.id: finding for result in self.results.values() for finding in result.findings}
        return [finding for name, finding in found.items() if name not in known]

    async def read_all(self) -> None:
        """Look at every target; raises as `read`."""
        await self._read_payloads(range(len(self._targets)))

    async def _read_payloads(self, payloads: Iterable[int]) -> None:
        keys = self._settings.keys
        submit = await self._server.call("HGET", keys.batch(self._batch, Part.META), "submit")
        for payload in payloads:
            name = f"{keys.batch(self._batch, Part.PARTIALS)}{payload}"
            envelopes = await self._server.call("LRANGE", name, self._read[payload], -1)
            self._read[payload] += len(envelopes)
            context = partial_context(self._batch, submit.decode(), payload)
            for envelope in envelopes:
                self._add(self._targets[payload], unpack(self._settings.signer.open(envelope, context)))

    def _add(self, target: str, result: object) -> None:
        if isinstance(result, FuzzResult):
            known = self.results.get(target)
            self.results[target] = result if known is None else _together(known, result)


def _together(one: FuzzResult, other: FuzzResult) -> FuzzResult:
    findings = {finding.id: finding for finding in one.findings}
    for finding in other.findings:
        known = findings.get(finding.id)
        findings[finding.id] = finding if known is None else _smaller(known, finding)
    return replace(one, examples=one.examples + other.examples, findings=list(findings.values()))


def _smaller(one: Finding, other: Finding) -> Finding:
    smallest = min(one, other, key=lambda finding: (len(finding.choices) or sys.maxsize, len(finding.example)))
    return replace(smallest, count=one.count + other.count, last_seen=max(one.last_seen, other.last_seen))
