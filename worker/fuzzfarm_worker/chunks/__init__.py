"""Chunks on a worker: the attempt that every chunk is, and the kinds of work that one can hold."""

from fuzzfarm_shared.keys import ChunkKind
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.payloads import Payload
from fuzzfarm_worker.chunks.attempt import Attempt
from fuzzfarm_worker.chunks.examinations import ExaminationWork
from fuzzfarm_worker.chunks.merges import MergeWork
from fuzzfarm_worker.chunks.operations import OperationsWork
from fuzzfarm_worker.chunks.shards import ShardWork
from fuzzfarm_worker.chunks.station import Station, Work

__all__ = ["Attempt", "Station", "Work", "work_of"]


def work_of(attempt: Attempt, payload: Payload) -> Work:
    """Return the kind of work that the chunk of `attempt` holds."""
    if attempt.claim.kind is ChunkKind.MERGE:
        return MergeWork(attempt, payload)
    operation = payload.operation(0) if payload.specs[0].kind == FuzzOperation.kind else None
    if isinstance(operation, FuzzOperation):
        examines = attempt.claim.kind is ChunkKind.EXAMINATION
        return ExaminationWork(attempt, operation) if examines else ShardWork(attempt, operation)
    return OperationsWork(attempt, payload)
