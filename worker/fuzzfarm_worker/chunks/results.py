"""Results of a fuzz operation: how a shard, or an examination, records its part of them."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Any

from fuzzfarm_shared.outcomes import ErrorKind, FuzzResult
from fuzzfarm_shared.store import sighting
from fuzzfarm_shared.store.readings import partial_context
from fuzzfarm_shared.values import pack
from fuzzfarm_worker.chunks.attempt import Attempt


def nothing(seed: int) -> FuzzResult:
    """Return the result of no examples."""
    return FuzzResult(
        examples=0, distinct_examples=0, invalid_examples=0, duration_s=0.0, executions_per_s=0.0, seed=seed
    )


def sealed(attempt: Attempt, part: Any) -> bytes:
    """Return a result, or an error, of a part of the operation, signed."""
    claim = attempt.claim
    return attempt.station.signer.seal(pack(part), partial_context(claim.id.batch, claim.submit_id, claim.payload))


async def commit_result(attempt: Attempt, result: FuzzResult, units: int, *, examine: Container[str] = ()) -> None:
    """Record what was found on this host; `done` already contains the units. Cancellation lets it go on.

    Args:
        attempt: at the shard, or the examination.
        result: since the last commit.
        units: that have their outcome with it.
        examine: ids of the findings to be examined.

    Raises:
        FencedError: when the chunk is no longer ours.
    """
    host, signer = attempt.station.settings.name, attempt.station.signer
    findings = [replace(finding, hosts=(host,)) for finding in result.findings]
    await attempt.commit(
        sealed(attempt, replace(result, findings=findings)),
        units=units,
        examples=result.examples,
        partial=True,
        blamed=sum(finding.kind is ErrorKind.WORKER_LOST for finding in findings),
        findings=[sighting(finding, host, signer, examine=finding.id in examine) for finding in findings],
    )
