"""What each worker tells of itself with its heartbeat, and what the server knows of the queue."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from fuzzfarm_shared.keys import Lane

HEARTBEAT_TTL_S = 10.0
"""A worker that was silent for this long is no longer shown."""


class WorkerReport(BaseModel):
    """One worker process at one moment.

    What is newer than the first release has a default: workers of several versions report while a farm is updated.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Unique name: host, process id and a few random letters.")
    host: str = Field(description="Host name, or what --name said.")
    pid: int = Field(description="Process id on that host.")
    version: str = Field(description="Version of fuzzfarm.")
    python: str = Field(description="Version of Python.")
    max_concurrency: int = Field(description="Operations that it may run at once.")
    running: int = Field(description="Operations that it runs.")
    chunks: int = Field(description="Chunks that it holds.")
    operations_done: int = Field(description="Operations that it has recorded since its start.")
    memory_bytes: int = Field(description="Resident memory.")
    load: float = Field(description="Load average of its host over one minute.")
    started_at: float = Field(description="When it started, seconds since the epoch by its own clock.")
    reported_at: float = Field(description="When it sent this, seconds since the epoch by its own clock.")
    memory_free: float | None = Field(
        default=None, description="Share of memory, 0 to 1, that is free for it on its host; None: it cannot tell."
    )
    under_pressure: bool = Field(
        default=False, description="Whether less is free than FUZZFARM_MEMORY_RESERVE: it takes one chunk at a time."
    )
    warnings: tuple[str, ...] = Field(
        default=(), description="What its allow-lists allow beyond what a farm needs; one sentence each."
    )
    heartbeat_age_s: float = Field(
        default=0.0, description="Seconds since its heartbeat, by the server's clock; known to who reads the report."
    )
    clock_ahead_s: float = Field(
        default=0.0, description="Seconds that its clock is ahead of the server's; known to who reads the report."
    )


class QueueReport(BaseModel):
    """What waits and what runs on a farm at one moment."""

    model_config = ConfigDict(frozen=True)

    waiting: int = Field(description="Chunks that wait for a worker.")
    waiting_by_lane: dict[Lane, int] = Field(description="The same, by what they need: a slot or a fuzzing child.")
    running: int = Field(description="Chunks that workers hold.")
    age_s: float | None = Field(description="Seconds that the oldest waiting chunk has waited; None when none waits.")
