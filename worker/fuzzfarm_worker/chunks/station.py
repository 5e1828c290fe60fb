"""What a chunk finds on its worker, and what its work looks like from there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store import AttemptStore, TellingStore
from fuzzfarm_worker.chunks.suspicion import Line
from fuzzfarm_worker.executors.kernel import Kernel
from fuzzfarm_worker.fuzzing import FuzzChildren
from fuzzfarm_worker.fuzzing.nursery import Nursery
from fuzzfarm_worker.handlers import Tools
from fuzzfarm_worker.intake import Intake
from fuzzfarm_worker.renewal import RenewalThread


@dataclass(slots=True)
class Station:
    """The parts of a worker that its chunks use.

    Attributes:
        name: of the worker, in every outcome.
        settings: of the worker.
        signer: checks payloads and signs outcomes.
        store: where chunks are claimed, committed and handed back.
        telling: where progress is told.
        kernel: runs operations, all chunks together within its slots.
        intake: is told what has started.
        renewals: keeps leases.
        tools: what handlers may use.
        children: run examples.
        nursery: makes the children in which findings are examined.
        operations_done: outcomes recorded since the worker started.
        told: findings that this worker has told, by batch, payload and id.
        change_s: seconds that it took lately to have a child of another target.
        suspect_shards: examples that may kill this worker run one at a time, so that none is blamed for another.
        suspect_operations: so do calls and jobs, in a line of their own, because they may take hours.
    """

    name: str
    settings: WorkerHostSettings
    signer: Signer
    store: AttemptStore
    telling: TellingStore
    kernel: Kernel
    intake: Intake
    renewals: RenewalThread
    tools: Tools
    children: FuzzChildren
    nursery: Nursery
    operations_done: int = 0
    change_s: float = 0.0
    told: set[tuple[str, int, str]] = field(default_factory=set)
    suspect_shards: Line = field(default_factory=Line)
    suspect_operations: Line = field(default_factory=Line)


class Work(Protocol):
    """The work of one chunk."""

    async def run(self) -> None:
        """Do all of it, commits included; on cancellation stop what runs and raise CancelledError."""
        ...

    async def leave(self) -> None:
        """After a cancellation: commit what has ended."""
        ...
