"""Stacks: what faulthandler writes behind the output of a process that dies or hangs, as frames."""

from __future__ import annotations

import re

from fuzzfarm_worker.fuzzing.signature import Frame

_HEADING = "(most recent call first):"
"""How faulthandler ends the line before a stack."""

_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$', re.MULTILINE)


def split_report(text: str) -> tuple[str, str]:
    """Return what a process printed, and what faulthandler wrote behind it."""
    place = text.rfind(_HEADING)
    if place < 0:
        return text, ""
    # The heading has a line before it that names the signal, when there was one.
    start = max(text.rfind("Fatal Python error", 0, place), text.rfind("Current thread", 0, place + 1))
    line = text.rfind("\n", 0, place) + 1
    return text[: max(0, start if start >= 0 else line)], text[start if start >= 0 else line :]


def frames_of(report: str) -> list[Frame]:
    """Return the stack of a report, outermost frame first."""
    return [Frame(m["file"], int(m["line"]), m["function"]) for m in _FRAME.finditer(report)][::-1]
