"""The board of one chunk: which of its subprocess jobs run right now, and how far each is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from fuzzfarm_worker.processes.command import CommandProgress
from fuzzfarm_worker.processes.run import CommandRun


class Board:
    """Running commands by the place of their operation; nothing is measured or copied until somebody asks."""

    def __init__(self) -> None:
        self._runs: dict[int, CommandRun] = {}

    def post(self, index: int) -> Callable[[CommandRun], None]:
        """Return what notes the run of the operation at `index`; a later try takes the place of an earlier one."""

        def note(run: CommandRun) -> None:
            self._runs[index] = run

        return note

    def remove(self, index: int) -> None:
        """Forget an operation that has ended."""
        self._runs.pop(index, None)

    def progress(self, most: int, tail_bytes: Callable[[int], int]) -> Iterator[tuple[int, CommandProgress]]:
        """Yield place and progress of running operations, those that have run longest first.

        Args:
            most: how many, at most.
            tail_bytes: how much of the newest output of each stream may be told of so many operations.
        """
        told = list(islice((item for item in self._runs.items() if item[1].running), most))
        for index, run in told:
            yield index, run.progress(tail_bytes(len(told)))
