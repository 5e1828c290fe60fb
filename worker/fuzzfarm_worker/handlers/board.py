"""The board of one chunk: which of its subprocess jobs run right now, and how far each is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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

    def progress(self, most: int, tail_bytes: int) -> Iterator[tuple[int, CommandProgress]]:
        """Yield place and progress of up to `most` running operations, those that have run longest first."""
        for index, run in list(self._runs.items())[:most]:
            yield index, run.progress(tail_bytes)
