"""Chunks that examine a finding: it is made smaller, and run again, while the search for others goes on."""

from __future__ import annotations

from dataclasses import replace

from fuzzfarm_shared.errors import CodecError, SignatureError, TargetError
from fuzzfarm_shared.keys import ONE_BY_ONE_DEATHS
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import Finding
from fuzzfarm_shared.store.findings import open_finding
from fuzzfarm_worker.chunks.admission import admitted
from fuzzfarm_worker.chunks.attempt import Attempt
from fuzzfarm_worker.chunks.results import commit_result, nothing
from fuzzfarm_worker.fuzzing.confirming import RUNS, confirm
from fuzzfarm_worker.fuzzing.shrinking import shrink

log = get_logger(__name__)


class ExaminationWork:
    """Examines one finding of a fuzz operation; see `Work`. Where it cannot be done, the finding stays as it is."""

    def __init__(self, attempt: Attempt, operation: FuzzOperation) -> None:
        self._attempt = attempt
        self._operation = operation

    async def run(self) -> None:
        """Record the finding with a smaller example, and with how often that failed."""
        attempt, claim = self._attempt, self._attempt.claim
        if claim.given_up or claim.deaths >= ONE_BY_ONE_DEATHS:
            await self._commit([])
            return
        try:
            examined = await self._examined()
        except (TargetError, CodecError, SignatureError, RuntimeError) as exc:
            log.warning("a finding was not examined", chunk=str(claim.id), reason=str(exc))
            if not isinstance(exc, TargetError) or await attempt.refuse():
                await self._commit([])
            return
        if attempt.stopping and examined.replays < RUNS:
            await attempt.hand_back_all()
        else:
            await self._commit([examined])

    async def leave(self) -> None:
        """An examination is one commit: there is nothing to leave."""

    async def _examined(self) -> Finding:
        attempt = self._attempt
        identifier, envelope = attempt.claim.enclosed
        finding = open_finding(envelope, self._operation.target, identifier.decode(), attempt.station.signer)
        operation = admitted(self._operation, attempt.station.tools.allowed)
        nursery = attempt.station.nursery
        async with attempt.station.children.place():
            try:
                finding = await shrink(nursery, operation, finding, proceed=self._proceed)
            except RuntimeError as exc:
                log.warning("a finding was not made smaller", chunk=str(attempt.claim.id), reason=str(exc))
            return await confirm(nursery, operation, finding, proceed=self._proceed)

    def _proceed(self) -> bool:
        return not self._attempt.stopping

    async def _commit(self, findings: list[Finding]) -> None:
        """Commit what came of it; it was counted where it was found."""
        attempt, claim = self._attempt, self._attempt.claim
        attempt.done.add_all(range(claim.start, claim.stop))
        counted = [replace(finding, count=0) for finding in findings]
        await commit_result(attempt, replace(nothing(self._operation.seed), findings=counted), units=1)
