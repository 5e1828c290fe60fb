"""The kinds of work that a chunk can hold, behind one small protocol."""

from __future__ import annotations

from typing import Protocol


class Work(Protocol):
    """The work of one chunk."""

    async def run(self) -> None:
        """Do all of it, commits included; on cancellation stop what runs and raise CancelledError."""

    async def leave(self) -> None:
        """After a cancellation: commit what has ended."""
