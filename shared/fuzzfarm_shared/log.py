"""Structured log lines through the standard logging module, so that a program which imports us decides what it sees."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import structlog


def get_logger(name: str) -> Any:
    """Return a logger whose lines read `event key=value ...`; nothing is configured by importing us."""
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            _render,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    text = event.pop("event")
    event.pop("exc_info", None)  # the standard logger shows it
    return " ".join([str(text), *(f"{name}={value}" for name, value in event.items())])
