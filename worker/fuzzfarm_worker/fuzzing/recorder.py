"""The flight recorder: a small shared mapping that says which example a child runs, whatever becomes of the child.

The child writes aligned 64-bit cells with plain stores, so the record survives its death and costs it well under a
microsecond per example; the worker reads them at any time. An example `i` is running exactly when `INDEX == NEXT == i`
and `STARTED` is not 0: the child writes `STARTED` and `INDEX` before it, and `NEXT = i + 1` after all it has to say
about it was sent.

The mapping may be a file of the host (see recordings.py), which says the same when the worker is dead, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzzfarm_worker.sandbox.cells import Cells

NOTHING = -1
"""`INDEX` before the first example of a run, and of examples that have none."""


class Cell(IntEnum):
    """What each cell holds."""

    INDEX = 0
    """The example being run, or the last one."""
    STARTED = 1
    """Its start, `time.monotonic_ns()` (one clock for all processes of a host); 0: nothing runs."""
    NEXT = 2
    """The first example of the run that is not done."""
    INVALID = 3
    """Examples of this run that were rejected."""
    DISTINCT = 4
    """Examples of this run that were not seen before in it."""
    STOP = 5
    """Not 0: end after this example."""
    DEADLINE = 6
    """Start no example after this time, `time.monotonic_ns()`; 0: none."""
    PRINTED = 7
    """Where in the file of what the child prints the output of the example begins."""
    VERDICT = 8
    """What a fork says of its call; see apart.py."""
    TAKEN_IN = 9
    """The first example that the worker has not taken in as done; the worker writes it."""
    OWNER = 10
    """For whom the run is: bytes of the text behind the cells; 0: nobody, or it has ended. The worker writes both."""


_OWNER_AT = 8 * len(Cell)
_CLEARED = memoryview(bytes(_OWNER_AT)).cast("q")


@dataclass(frozen=True, slots=True)
class Recording:
    """What the recorder of a dead worker tells.

    Attributes:
        owner: for whom the run was.
        first: the first example that the worker has not seen done.
        last: the last one that has begun. The child may have outlived its worker for a moment.
    """

    owner: str
    first: int
    last: int

    @classmethod
    def of(cls, page: bytes) -> Recording | None:
        """Return what the cells in `page` tell; None where nothing ran, or where they are damaged."""
        if len(page) < _OWNER_AT:
            return None
        cells = memoryview(page[:_OWNER_AT]).cast("q")
        owner = page[_OWNER_AT : _OWNER_AT + max(0, cells[Cell.OWNER])].decode(errors="replace")
        first, last = cells[Cell.TAKEN_IN], cells[Cell.NEXT] - 1
        if cells[Cell.STARTED]:
            last = max(last, cells[Cell.INDEX])
        return cls(owner, first, last) if owner and 0 <= first <= last else None


class Recorder:
    """The record, as the worker and the child both see it.

    Args:
        shared: the mapping that they share; it stays the caller's.
    """

    def __init__(self, shared: Cells) -> None:
        self.cells = shared.numbers

    def begin(self, start: int, deadline_ns: int, owner: str = "") -> None:
        """Prepare a run that starts at `start`, for `owner`; the child must be idle."""
        self.cells[: len(_CLEARED)] = _CLEARED
        self.cells[Cell.INDEX] = NOTHING
        self.cells[Cell.NEXT] = self.cells[Cell.TAKEN_IN] = start
        self.cells[Cell.DEADLINE] = deadline_ns
        text = owner.encode()
        with self.cells.cast("B") as raw:
            raw[_OWNER_AT : _OWNER_AT + len(text)] = text
        self.cells[Cell.OWNER] = len(text)

    def end(self) -> None:
        """Nothing runs for the owner any more."""
        self.cells[Cell.OWNER] = 0

    @property
    def running(self) -> int | None:
        """The example that runs or ran at the child's death; None: none."""
        index = self.cells[Cell.INDEX]
        if self.cells[Cell.STARTED] and index == self.cells[Cell.NEXT]:
            return index
        return None
