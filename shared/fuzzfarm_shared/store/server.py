"""The server as the store sees it: our Lua scripts, each run by its digest, and plain commands."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from fuzzfarm_shared import arq_queue
from fuzzfarm_shared.connection import Patience, farm_errors
from fuzzfarm_shared.keys import ONE_BY_ONE_DEATHS, AttemptPhase, ChunkKind, Lane, Part
from fuzzfarm_shared.schedule import Priority
from fuzzfarm_shared.settings import FarmSettings

LIBRARIES = {
    "commit": ("prelude", "finding", "examination"),
    "forget": ("prelude", "finding"),
    "restore": ("prelude", "examination"),
}
"""What stands in front of a script, where it needs more than the prelude."""


@lru_cache
def source(name: str) -> str:
    """Return the text of script `name`, with the names that it shares with Python in front."""
    folder = resources.files("fuzzfarm_shared.store") / "lua"
    parts = ", ".join(f"{part.name} = '{part.value}'" for part in Part)
    kinds = ", ".join(f"{kind.name} = '{kind.value}'" for kind in ChunkKind)
    phases = ", ".join(f"{phase.name} = '{phase.value}'" for phase in AttemptPhase)
    lanes = ", ".join(f"'{lane.value}'" for lane in Lane)
    priorities = ", ".join(f"'{priority.value}'" for priority in Priority)
    header = (
        f"local part = {{{parts}}}\n"
        f"local KIND = {{{kinds}}}\n"
        f"local PHASE = {{{phases}}}\n"
        f"local ONE_BY_ONE_DEATHS = {ONE_BY_ONE_DEATHS}\n"
        f"local LANES = {{{lanes}}}\n"
        f"local PRIORITIES = {{{priorities}}}\n"
        f"local ARQ = {{JOB = '{arq_queue.JOB_PREFIX}', RETRY = '{arq_queue.RETRY_PREFIX}', "
        f"IN_PROGRESS = '{arq_queue.IN_PROGRESS_PREFIX}', IN_PROGRESS_MS = {arq_queue.IN_PROGRESS_MS}, "
        f"CLOCK_SKEW_MS = {arq_queue.CLOCK_SKEW_MS}, LANE_GAP_MS = {arq_queue.LANE_GAP_MS}, "
        f"FUNCTION = '{arq_queue.FUNCTION}'}}\n"
    )
    files = (*LIBRARIES.get(name, ("prelude",)), name)
    return header + "".join((folder / f"{file}.lua").read_text() for file in files)


@lru_cache
def digest(name: str) -> str:
    """Return the name under which the server keeps script `name`."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


class Server:
    """Runs scripts and commands on one server, through outages; each may safely be run twice."""

    def __init__(self, client: Redis, settings: FarmSettings) -> None:
        self.client = client
        self.settings = settings
        self._patience = Patience(settings)

    async def run(self, script: str, *args: str | float | bytes) -> Any:
        """Return the reply of a script.

        Raises:
            FarmUnreachableError: when the server stayed away for `reconnect_s`.
        """
        with farm_errors(self.settings):
            return await self._patience.call(lambda: self._evaluate(script, args))

    async def call(self, *command: str | float | bytes) -> Any:
        """Return the reply of one idempotent command; raises as `run`."""
        with farm_errors(self.settings):
            return await self._patience.call(lambda: self._execute(*command))

    async def read(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        """Return the replies of several reading commands, of one moment and in one round trip; raises as `run`."""
        with farm_errors(self.settings):
            return await self._patience.call(lambda: self._execute_together(commands))

    async def _execute_together(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        pipeline = self.client.pipeline(transaction=True)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute()

    async def time_s(self) -> float:
        """Return the server's time in seconds since the epoch; raises as `run`."""
        seconds, micros = await self.call("TIME")
        return int(seconds) + int(micros) / 1e6

    async def _evaluate(self, script: str, args: tuple[Any, ...]) -> Any:
        try:
            return await self._execute("EVALSHA", digest(script), 1, self.settings.namespace, *args)
        except NoScriptError:
            return await self._execute("EVAL", source(script), 1, self.settings.namespace, *args)

    async def _execute(self, *command: Any) -> Any:
        return await self.client.execute_command(*command)  # type: ignore[no-untyped-call]
