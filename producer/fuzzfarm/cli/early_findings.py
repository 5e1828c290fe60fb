"""Findings of shards that are recorded already, while their fuzz operation still runs: for progress and for Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fuzzfarm.batch import Batch
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import Finding, FuzzResult

TARGETS_PER_READ = 16
"""Each costs two requests, and readings come several times a second."""


class EarlyFindings:
    """Reads the results of shards as they come.

    Args:
        batch: a batch of fuzz operations only.
        targets: their keys, in the order of their submission.
    """

    def __init__(self, batch: Batch, targets: Sequence[str]) -> None:
        self._batch = batch
        self._targets = targets
        self._next = 0
        self._read = [0] * len(targets)
        self.results: dict[str, FuzzResult] = {}

    @property
    def findings(self) -> dict[str, Finding]:
        """All findings so far, by id."""
        return {finding.id: finding for result in self.results.values() for finding in result.findings}

    async def read(self) -> list[Finding]:
        """Look at the next few targets in turn, and return the findings that are new.

        Raises:
            FarmUnreachableError: when the server stays away.
        """
        known = self.findings
        turn = [(self._next + step) % len(self._targets) for step in range(min(TARGETS_PER_READ, len(self._targets)))]
        self._next = (turn[-1] + 1) % len(self._targets)
        await self._read_targets(turn)
        return [finding for name, finding in self.findings.items() if name not in known]

    async def read_all(self) -> None:
        """Look at every target; raises as `read`."""
        await self._read_targets(range(len(self._targets)))

    async def _read_targets(self, places: Iterable[int]) -> None:
        for place in places:
            results = await self._batch.shard_results(place, self._read[place])
            if results:
                self._read[place] += len(results)
                target = self._targets[place]
                self.results[target] = merge([*filter(None, [self.results.get(target)]), *results])
