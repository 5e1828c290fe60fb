"""Reports of sanitizers (Address, Leak, Memory, Thread, UndefinedBehavior) in what a program printed.

The forms are those of LLVM's and GCC's runtimes: https://github.com/google/sanitizers/wiki/AddressSanitizer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

MAX_FRAMES = 3
"""Innermost frames that take part in a signature, as for Python."""

RECURSES = 5
"""A function this often on a stack belongs to a cycle, as for Python."""

MAX_TEXT_CHARS = 20_000

HEAD = re.compile(
    r"^(?:=*\s*)?(?:==\d+==\s?)?(?:ERROR|WARNING): (?P<tool>\w+Sanitizer): ?(?P<what>.+)$"
    r"|^(?P<place>\S+?:\d+(?::\d+)?): runtime error: (?P<error>.+)$",
    re.MULTILINE,
)

END_OF_KIND = re.compile(r" on | in | at |: | \(| 0x|, | with | after which| which ")
"""What follows the kind of an error: addresses, sizes and threads, which differ each time."""

NUMBER = re.compile(r"0x[0-9a-f]+|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)

FRAME = re.compile(r"^\s+#\d+ (?:0x[0-9a-f]+\s+)?(?:in )?(?P<rest>\S.*)$")
BUILD = re.compile(r"\s*\(BuildId: [0-9a-f]+\)$")
SOURCE = re.compile(r"^(?P<function>\S.*?) (?P<file>[^\s():]+):(?P<line>\d+)(?::\d+)?(?: \(.*\))?$")
MODULE = re.compile(r"^(?:(?P<function>\S.*?) (?:<null> )?)?\((?P<module>[^()]+)\+(?P<offset>0x[0-9a-f]+)\)$")

RUNTIME = re.compile(
    r"^(?:__(?:asan|lsan|msan|tsan|ubsan|sanitizer|interceptor|libc_start)|_start\b|__?interceptor_|"
    r"operator (?:new|delete)|(?:malloc|calloc|realloc|free|abort|raise|gsignal|_exit|exit)\b)"
)
"""Functions of the runtimes and of the C library that a report begins or ends with."""

RUNTIME_PLACES = (
    *("libasan", "liblsan", "libmsan", "libtsan", "libubsan", "libclang_rt", "compiler-rt", "sanitizer_common"),
    *("/libc.so", "/libc-", "/ld-linux", "/ld-musl", "sysdeps/", "csu/libc-start"),
)


@dataclass(frozen=True, slots=True)
class StackLine:
    """One frame of a report.

    Attributes:
        function: its name, or the offset in its module.
        file: name of the source, or of the module, without folders.
        line: number of the line, or "".
        foreign: whether it belongs to a runtime, or to the C library.
    """

    function: str
    file: str
    line: str
    foreign: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.function}"

    @property
    def location(self) -> str:
        """Where it is, for people."""
        return f"{self.file}:{self.line} in {self.function}" if self.line else f"{self.function} of {self.file}"


@dataclass(frozen=True, slots=True)
class SanitizerReport:
    """What a report says.

    Attributes:
        type: the sanitizer and the kind of error, such as "AddressSanitizer: heap-buffer-overflow".
        headline: its first line.
        path: the innermost frames of user code, without lines, or what else tells where.
        location: where it is, for people, or "".
        text: the report, bounded.
    """

    type: str
    headline: str
    path: list[str]
    location: str
    text: str


def sanitizer_report(printed: str) -> SanitizerReport | None:
    """Return the first report in what a program printed, or None."""
    head = HEAD.search(printed)
    if head is None:
        return None
    text = printed[head.start() : head.start() + MAX_TEXT_CHARS]
    frames = _user_frames(text)
    if head["tool"]:
        kind, headline, place = _kind(head["what"]), f"{head['tool']}: {head['what']}", ""
        name = head["tool"]
    else:
        name, headline, place = "UndefinedBehaviorSanitizer", head["error"], head["place"].rpartition("/")[2]
        kind = _kind(head["error"])
    path = _path(frames) or ([place] if place else [])
    return SanitizerReport(f"{name}: {kind}", headline, path, frames[0].location if frames else place, text)


def _path(frames: list[StackLine]) -> list[str]:
    """Return the frames that tell errors apart: the innermost ones, or those of the cycle that a recursion is."""
    counts = Counter(map(str, frames))
    cycle = sorted(name for name, count in counts.items() if count >= RECURSES)
    return cycle or [str(frame) for frame in frames[:MAX_FRAMES]]


def _kind(what: str) -> str:
    """Return the words that are the same each time such an error is reported."""
    end = END_OF_KIND.search(what)
    return NUMBER.sub("N", what[: end.start()] if end is not None and end.start() else what).strip()


def _user_frames(text: str) -> list[StackLine]:
    """Return the frames of user code in the first stack of a report; all of them where there are no others."""
    frames = list(_first_stack(text))
    return [frame for frame in frames if not frame.foreign] or frames


def _first_stack(text: str) -> Iterator[StackLine]:
    seen = False
    for line in text.splitlines():
        found = FRAME.match(line)
        if found is not None:
            seen = True
            yield _stack_line(BUILD.sub("", found["rest"]))
        elif seen:
            return


def _stack_line(rest: str) -> StackLine:
    foreign = bool(RUNTIME.match(rest)) or any(place in rest for place in RUNTIME_PLACES)
    if (found := SOURCE.match(rest)) is not None:
        return StackLine(found["function"], found["file"].rpartition("/")[2], found["line"], foreign)
    if (found := MODULE.match(rest)) is not None:
        return StackLine(found["function"] or found["offset"], found["module"].rpartition("/")[2], "", foreign)
    return StackLine(rest, "", "", foreign)
