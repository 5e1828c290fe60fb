"""What each worker tells of itself with its heartbeat."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

HEARTBEAT_TTL_S = 10.0
"""A worker that was silent for this long is no longer shown."""


class WorkerReport(BaseModel):
    """One worker process at one moment."""

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
