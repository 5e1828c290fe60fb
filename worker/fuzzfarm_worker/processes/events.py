"""What happens to processes, told to whoever wants to know."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

_log = logging.getLogger(__name__)


class ProcessEventKind(StrEnum):
    """What happened."""

    STARTED = "started"
    HUNG = "hung"
    KILLED = "killed"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """Something that happened to one process."""

    kind: ProcessEventKind
    pid: int
    name: str
    detail: str = ""
    """Why, in words."""
    exit_code: int | None = None
    """With FINISHED."""


EventCallback = Callable[[ProcessEvent], None]


def emit(callback: EventCallback, event: ProcessEvent) -> None:
    """Tell ``callback``; an error in it is logged, because processes must be watched and stopped all the same."""
    try:
        callback(event)
    except Exception:  # noqa: BLE001 - see above
        _log.exception("event callback failed on %s of process %d", event.kind, event.pid)
