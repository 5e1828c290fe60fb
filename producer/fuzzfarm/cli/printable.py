"""Text that is safe on a terminal: a fuzzed program's output may hold anything."""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences: colours, cursor movements
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\)"  # strings: window titles, links, device control
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
"""ECMA-48, sections 5.4 and 5.6, and the BEL that xterm accepts as an end of such strings."""

_CONTROLS = dict.fromkeys(
    [code for code in range(0x20) if chr(code) not in "\t\n"]
    + list(range(0x7F, 0xA0))
    + [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)
"""C0 but tab and newline, DEL, C1, and what changes the direction of text (it can hide what code says)."""


def printable(text: str) -> str:
    """Return `text` without control characters and sequences; lone surrogates become escapes."""
    clean = _ESCAPES.sub("", text).translate(_CONTROLS)
    return clean.encode("utf-8", "backslashreplace").decode()


def shortened(text: str, limit: int) -> str:
    """Return `text` on one line of at most `limit` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
