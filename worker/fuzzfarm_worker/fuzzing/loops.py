"""Loops: whether a line of source runs inside one, told from how the lines above it are indented."""

from __future__ import annotations

import linecache
import re
from enum import IntEnum

_LOOP = re.compile(r"(?P<while>while\b)|(async\s+)?for\b")
_FUNCTION = re.compile(r"(async\s+)?def\b|class\b")


class Loop(IntEnum):
    """What a line is inside of; the larger, the likelier it runs for ever."""

    NONE = 0
    FOR = 1
    WHILE = 2


def loop_around(file: str, line: int) -> Loop:
    """Return the likeliest endless loop of its function that a line belongs to; NONE where the source is not there.

    Args:
        file: path of the source.
        line: number of the line, from 1.
    """
    lines = linecache.getlines(file)
    if not 0 < line <= len(lines):
        return Loop.NONE
    found, indent = _loop_of(lines[line - 1]), _indent(lines[line - 1])
    for above in reversed(lines[: line - 1]):
        text = above.split("#")[0].rstrip()
        if _indent(above) >= indent or not text.endswith(":"):
            continue
        if _FUNCTION.match(text.lstrip()):
            break
        found, indent = max(found, _loop_of(above)), _indent(above)
    return found


def _loop_of(line: str) -> Loop:
    match = _LOOP.match(line.lstrip())
    if match is None:
        return Loop.NONE
    return Loop.WHILE if match["while"] else Loop.FOR


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
