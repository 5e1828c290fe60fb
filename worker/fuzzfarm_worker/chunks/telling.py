"""Telling how far the jobs of a chunk are, while somebody looks; it never holds up the work."""

from __future__ import annotations

import asyncio

from fuzzfarm_shared.errors import FuzzfarmError
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.payloads import Payload
from fuzzfarm_shared.progress import MOST_TOLD, Progress, tail_bytes
from fuzzfarm_worker.chunks.attempt import Attempt
from fuzzfarm_worker.handlers.board import Board
from fuzzfarm_worker.processes.capture import decode_newest

log = get_logger(__name__)


class Teller:
    """Tells what is on a board, one message at a time; what the server does not take is not told."""

    def __init__(self, attempt: Attempt, payload: Payload, board: Board) -> None:
        self._attempt = attempt
        self._payload = payload
        self._board = board
        self._telling: asyncio.Task[None] | None = None

    def tell_soon(self) -> None:
        """Tell, if somebody looks and the last message has got through."""
        if self._attempt.lease.watched and (self._telling is None or self._telling.done()):
            progress = self._progress()
            if progress:
                self._telling = asyncio.create_task(self._tell(progress))

    async def aclose(self) -> None:
        """Tell nothing more; commits remove what was told, or it expires."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])

    async def _tell(self, progress: list[Progress]) -> None:
        try:
            await self._attempt.station.telling.tell(self._attempt.claim.id, self._attempt.claim.submit_id, progress)
        except FuzzfarmError as exc:
            log.debug("progress could not be told", chunk=str(self._attempt.claim.id), reason=str(exc))

    def _progress(self) -> list[Progress]:
        return [
            Progress(
                key=self._payload.keys_of([index])[0],
                attempt=self._attempt.claim.attempt,
                worker=self._attempt.station.name,
                running_s=told.running_s,
                stdout_bytes=told.stdout_bytes,
                stderr_bytes=told.stderr_bytes,
                stdout_tail=decode_newest(told.stdout_tail),
                stderr_tail=decode_newest(told.stderr_tail),
                memory_bytes=told.memory_bytes,
                cpu_time_s=told.cpu_time_s,
            )
            for index, told in self._board.progress(MOST_TOLD, tail_bytes)
        ]
