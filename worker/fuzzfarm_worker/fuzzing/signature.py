"""Signatures: what makes two failures one finding.

A signature is the chain of exception types and the frames of the user's code, innermost last, without line numbers,
so that it survives edits elsewhere in a file. Recursion is collapsed by erasing loops from the path of calls (as in
Lawler's loop-erased walk): however deep a parser was when it failed, the path names each function once. Only the
innermost frame says which line failed, by its text.
"""

from __future__ import annotations

import linecache
import os
import sysconfig
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from types import CodeType, TracebackType

from fuzzfarm_worker.fuzzing.crashes import CommandCrashError

MAX_CHAIN = 6
"""Exceptions of one chain that take part; longer chains come from loops that retry."""

MAX_FRAMES = 3
"""Innermost frames that take part. More tells one bug reached on two ways apart, fewer merges two bugs of a helper."""

RECURSES = 5
"""A function this often on the path of a RecursionError belongs to the cycle."""

ID_BYTES = 6
"""12 hex digits: one accidental collision among 16 million findings is unlikely (birthday bound)."""

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
        function: qualified name.
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.function}"

    @property
    def location(self) -> str:
        """Where it is, for people."""
        return f"{os.path.basename(self.file)}:{self.line} in {self.function}"


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


def without_loops(frames: Iterable[Frame]) -> list[Frame]:
    """Return the path of calls with each function once: coming back to a function cuts the loop out."""
    path: list[Frame] = []
    position: dict[str, int] = {}
    for frame in frames:
        if (at := position.get(str(frame))) is not None:
            for cut in path[at:]:
                del position[str(cut)]
            del path[at:]
        position[str(frame)] = len(path)
        path.append(frame)
    return path


def of_stack(kind: str, frames: list[Frame]) -> str:
    """Return the signature of a stack without an exception: a crash or a hang, outermost frame first.

    It has no lines: where a hang is caught depends on the moment.
    """
    return " < ".join([kind, *(str(frame) for frame in without_loops(user_frames(frames))[:MAX_FRAMES])])


def of_exception(exc: BaseException) -> str:
    """Return the signature of a failure."""
    if isinstance(exc, CommandCrashError):
        return exc.crash.signature
    return " | ".join(_of_one(one) for one in _chain(exc))


def _of_one(exc: BaseException) -> str:
    name = type_name(exc)
    if isinstance(exc, BaseExceptionGroup):
        name += f"[{', '.join(sorted({type_name(member) for member in exc.exceptions}))}]"
    frames = user_frames(walk(exc.__traceback__))
    if isinstance(exc, RecursionError):
        counts = Counter(map(str, frames))
        cycle = sorted(name for name, count in counts.items() if count >= RECURSES)
        return " < ".join([name, *(cycle or [str(frame) for frame in without_loops(frames)[:MAX_FRAMES]])])
    path = without_loops(frames)[-MAX_FRAMES:]
    if not path:
        return name
    text = linecache.getline(path[-1].file, path[-1].line).strip()
    return " < ".join([name, *map(str, path), text])


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen and len(seen) < MAX_CHAIN:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def walk(tb: TracebackType | None) -> Iterator[Frame]:
    """Yield the frames of a traceback, outermost first."""
    while tb is not None:
        code: CodeType = tb.tb_frame.f_code
        yield Frame(code.co_filename, tb.tb_lineno, code.co_qualname)
        tb = tb.tb_next


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
