"""Signatures: what makes two failures one finding.

A bug is where somebody will repair it. So a signature is the chain of exception types, each with the innermost frame of
the user's code and the text of the line that failed there; not the way that led there, and no line numbers, so that it
survives edits elsewhere in the file. Three kinds of failures are not repaired where they are caught:

- What a helper raises on behalf of its caller (`require(...)`, `self.error(...)`, `__post_init__`): the caller's frame
  belongs to it, too.
- A recursion without an end: it is named by the function that comes back most often, whatever the input made of the
  others.
- A hang, and memory that ran out, are caught at some moment of a loop: they are named by the function of that loop.
"""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from types import TracebackType

from fuzzfarm_worker.fuzzing.crashes import CommandCrashError
from fuzzfarm_worker.fuzzing.loops import Loop, loop_around

MAX_CHAIN = 6
"""Exceptions of one chain that take part; longer chains come from loops that retry."""

MAX_HELPERS = 3
"""Frames of helpers that take part; a helper that calls helpers is rare, and a recursion of them is none."""

RECURSES = 5
"""A function this often on the path of a hang recurses."""

ALMOST_AS_OFTEN = 0.9
"""Functions of one cycle differ by one in how often they are on the path, wherever it was cut."""

CUT_STACK = 99
"""A crash with so many frames comes from a recursion: faulthandler writes the innermost 100."""

ID_BYTES = 6
"""12 hex digits: one accidental collision among 16 million findings is unlikely (birthday bound)."""

HANG = "hang"
SIGXCPU = "SIGXCPU"
ENDLESS = {HANG, SIGXCPU}
"""What is caught somewhere in its loop: when it takes too long, and when its CPU seconds are used up."""


_HELPER_WORDS = {
    "abort", "assert", "bail", "check", "deny", "die", "ensure", "err", "error", "expect", "fail", "failure", "must",
    "panic", "raise", "refuse", "reject", "require", "throw", "unexpected", "validate", "verify",
}  # fmt: skip
"""Words in names of functions that raise because of what their caller did."""

_WORD = re.compile(r"[A-Za-z][a-z]*")

_COMPREHENSION = re.compile(r"(\.<locals>)?\.<(listcomp|setcomp|dictcomp|genexpr)>$")
"""Part of the function that it stands in; newer interpreters give most of them no frame of their own (PEP 709)."""

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = tuple(sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "platstdlib"))
_SITE = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_TOOLS = tuple(f"{os.sep}{name}{os.sep}" for name in ("hypothesis", "_pytest", "pluggy"))


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stack.

    Attributes:
        file: path of the source.
        line: line number, from 1.
        function: qualified name, or the plain one where a crash report tells no more.
        first_line: number of the first line of its function; 0: not known.
    """

    file: str
    line: int
    function: str
    first_line: int = 0

    def __str__(self) -> str:
        folder, name = os.path.split(self.file)
        if name == "__init__.py":  # there are many
            name = f"{os.path.basename(folder)}/{name}"
        return f"{name}:{_COMPREHENSION.sub('', self.function)}"

    @property
    def location(self) -> str:
        """Where it is, for people."""
        return f"{os.path.basename(self.file)}:{self.line} in {self.function}"

    @property
    def text(self) -> str:
        """The line of the source; of several equal ones of a function, with its number among them."""
        lines = linecache.getlines(self.file)
        if not 0 < self.line <= len(lines):
            return ""
        text = lines[self.line - 1].strip()
        before = lines[self.first_line - 1 : self.line - 1] if self.first_line else []
        equal = sum(line.strip() == text for line in before)
        return f"{text} #{equal + 1}" if equal else text


@lru_cache(maxsize=4096)
def origin(file: str) -> str:
    """Return whose code a file is: "user", "stdlib", or "tool" for ours, Hypothesis' and generated code."""
    if file.startswith(("<", _OURS)) or any(part in file for part in _TOOLS):
        return "stdlib" if file.startswith("<frozen") else "tool"
    if file.startswith(_STDLIB) and not any(part in file for part in _SITE):
        return "stdlib"
    return "user"


def user_frames(frames: Iterable[Frame]) -> list[Frame]:
    """Return the frames of the user's code; those of the standard library where there are no others."""
    found = [frame for frame in frames if origin(frame.file) != "tool"]
    return [frame for frame in found if origin(frame.file) == "user"] or found


def of_stack(kind: str, frames: Sequence[Frame]) -> str:
    """Return the signature of a stack without an exception: a crash or a hang.

    Args:
        kind: "hang", or how the interpreter ended.
        frames: outermost first; may be empty.
    """
    for file in {frame.file for frame in frames}:
        linecache.checkcache(file)  # it may have been edited since another crash
    path = user_frames(frames)
    if not path:
        return kind
    if kind in ENDLESS:
        return f"{kind} < {_endless(path)}"
    if len(frames) >= CUT_STACK:
        return f"{kind} < {_core_of_cycle(path)}"
    return f"{kind} < {path[-1]} < {path[-1].text}"


def _endless(path: Sequence[Frame]) -> str:
    """Return what does not end: the function of a loop or a recursion, or else the line that waits or computes."""
    last: dict[Loop, int] = {}
    for place, frame in enumerate(path):
        last[loop_around(frame.file, frame.line)] = place
    counts = Counter(map(str, path))
    recursing = max((place for place, frame in enumerate(path) if counts[str(frame)] >= RECURSES), default=-1)
    if recursing > last.get(Loop.WHILE, -1):
        return _core_of_cycle(path)
    looping = last.get(Loop.WHILE, last.get(Loop.FOR))
    return f"{path[-1]} < {path[-1].text}" if looping is None else str(path[looping])


def _core_of_cycle(path: Sequence[Frame]) -> str:
    """Return the function that comes back most often; of several the one that came first."""
    functions = [str(frame) for frame in path if not _COMPREHENSION.search(frame.function)]
    counts = Counter(functions)
    most = max(counts.values(), default=0)
    return next((name for name in functions if counts[name] >= most * ALMOST_AS_OFTEN), str(path[0]))


def of_exception(exc: BaseException) -> str:
    """Return the signature of a failure."""
    if isinstance(exc, CommandCrashError):
        return exc.crash.signature
    return " | ".join(_of_one(one) for one in _chain(exc))


def _of_one(exc: BaseException) -> str:
    name = type_name(exc)
    if isinstance(exc, BaseExceptionGroup):
        name += f"[{min(map(of_exception, exc.exceptions))}]"  # others may or may not have failed at the same time
    path = user_frames(walk(exc.__traceback__))
    if not path:
        return name
    if isinstance(exc, RecursionError):
        return f"{name} < {_core_of_cycle(path)}"
    if isinstance(exc, MemoryError) and loop_around(path[-1].file, path[-1].line) is not Loop.NONE:
        return f"{name} < {path[-1]}"
    return " < ".join([name, *(f"{frame} < {frame.text}" for frame in _blamed(path))])


def _blamed(path: Sequence[Frame]) -> Sequence[Frame]:
    """Return the innermost frame, after those that it speaks for."""
    helpers = 0
    while helpers < min(MAX_HELPERS, len(path) - 1) and _speaks_for_its_caller(path[-1 - helpers]):
        helpers += 1
    return path[len(path) - 1 - helpers :]


def _speaks_for_its_caller(frame: Frame) -> bool:
    """Whether a frame is of a helper that raises; what goes wrong inside one is a bug of its own."""
    if not frame.text.startswith(("raise", "assert")):
        return False
    name = frame.function.rpartition(".")[2]
    return name.startswith("__") or not _HELPER_WORDS.isdisjoint(word.lower() for word in _WORD.findall(name))


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen and len(seen) < MAX_CHAIN:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else _translated(current))


def _translated(exc: BaseException) -> BaseException | None:
    """Return the exception that was caught where this one was raised; one that was caught further out has no part."""
    before = exc.__context__
    if before is None or before.__traceback__ is None:
        return None
    path = user_frames(walk(exc.__traceback__))
    frames = [entry.tb_frame for entry in _entries(exc.__traceback__)]
    raised_in = [frame for frame in frames if origin(frame.f_code.co_filename) == "user"][-len(_blamed(path)) :]
    return before if path and before.__traceback__.tb_frame in raised_in else None


def _entries(tb: TracebackType | None) -> Iterator[TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def walk(tb: TracebackType | None) -> Iterator[Frame]:
    """Yield the frames of a traceback, outermost first."""
    for entry in _entries(tb):
        code = entry.tb_frame.f_code
        yield Frame(code.co_filename, entry.tb_lineno, code.co_qualname, code.co_firstlineno)


def location(frames: Iterable[Frame]) -> str:
    """Return where the innermost frame of the user's code is, or ""."""
    found = user_frames(frames)
    return found[-1].location if found else ""


def type_name(exc: BaseException) -> str:
    """Return the dotted name of an exception's class, without "builtins"."""
    cls = type(exc)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def finding_id(target: str, signature: str) -> str:
    """Return the short identifier of a finding."""
    return blake2b(f"{target}\0{signature}".encode("utf-8", "backslashreplace"), digest_size=ID_BYTES).hexdigest()


def formatted(exc: BaseException) -> str:
    """Return the traceback as text, from the first frame that is not ours or Hypothesis'."""
    tb = exc.__traceback__
    while tb is not None and tb.tb_next is not None and origin(tb.tb_frame.f_code.co_filename) == "tool":
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(exc), exc, tb))
