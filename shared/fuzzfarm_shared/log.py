"""Structured log lines through the standard logging module, so that a program which imports us decides what it sees."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from functools import cached_property
from typing import Any


class LazyLogger:
    """Imports structlog with its first line: that loads rich, which a program that only submits can do without.

    Args:
        name: of the standard logger that gets the lines.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        return getattr(self._logger, method)

    @cached_property
    def _logger(self) -> Any:
        import structlog  # noqa: PLC0415 - see above

        return structlog.wrap_logger(
            logging.getLogger(self._name),
            processors=[structlog.stdlib.filter_by_level, _render],
            wrapper_class=structlog.stdlib.BoundLogger,
        )


def get_logger(name: str) -> Any:
    """Return a logger whose lines read `event key=value ...`; nothing is configured by importing us."""
    return LazyLogger(name)


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    text = event.pop("event")
    event.pop("exc_info", None)  # the standard logger shows it
    return " ".join([str(text), *(f"{name}={value}" for name, value in event.items())])
