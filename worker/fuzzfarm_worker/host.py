"""One worker process: what it owns, its heartbeat, and the life of each chunk that it takes."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import signal
import time
from contextlib import AsyncExitStack

from fuzzfarm_shared.broad_lists import warnings_of
from fuzzfarm_shared.connection import check_server, connect
from fuzzfarm_shared.errors import FuzzfarmError
from fuzzfarm_shared.keys import AttemptId
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.reports import HEARTBEAT_TTL_S, WorkerReport
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_shared.store import AttemptStore, Claim, ReadingStore, ReapingStore, Refused, Server, TellingStore
from fuzzfarm_worker.allowlist import AllowList
from fuzzfarm_worker.chunks import Attempt, Station, work_of
from fuzzfarm_worker.executors.kernel import Kernel
from fuzzfarm_worker.fuzzing import FuzzChildren
from fuzzfarm_worker.fuzzing.nursery import Nursery
from fuzzfarm_worker.fuzzing.recordings import Dead, Recordings
from fuzzfarm_worker.handlers import Tools
from fuzzfarm_worker.intake import Intake
from fuzzfarm_worker.memory import Memory, MemoryPressure, resident_bytes
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.reaper import Reaper
from fuzzfarm_worker.renewal import RenewalThread
from fuzzfarm_worker.sandbox import Sandbox
from fuzzfarm_worker.tools import workplace
from fuzzfarm_worker.version import VERSION

HEARTBEAT_EVERY_S = 1.0
"""How soon the chunks of a dead worker are noticed after their lease has ended; sooner where leases are short."""

log = get_logger(__name__)


class WorkerHost:
    """Everything that one worker process owns; arq calls it for each job that it starts.

    Args:
        settings: of this worker.

    Raises:
        SettingsError: for settings with which it must not start.
    """

    station: Station

    def __init__(self, settings: WorkerHostSettings) -> None:
        self.settings = settings
        self.name = f"{settings.name}-{os.getpid()}-{secrets.token_hex(2)}"
        self.kernel = Kernel(settings.max_concurrency)
        self.intake = Intake(self.kernel, settings.max_children)
        self.server = Server(connect(settings), settings)
        self.store = AttemptStore(self.server, self.name, settings.lease_s, settings.max_concurrency)
        reaping, readings = ReapingStore(self.server, settings.signer), ReadingStore(self.server, settings.signer)
        self._reaper = Reaper(self.store, reaping, readings, settings.signer, self.name)
        self._allowed = AllowList.from_settings(settings)
        self._pressure = MemoryPressure(settings.memory_reserve, Memory())
        self._warnings = warnings_of(settings)
        self._attempts: set[Attempt] = set()
        self.leaving = False
        self._started_at = time.time()
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Connect, and start renewals and heartbeat.

        Raises:
            FarmUnreachableError: when the server does not answer.
        """
        await check_server(self.server.client, self.settings)
        processes = await self._stack.enter_async_context(ProcessManager())
        sandbox = await self._stack.enter_async_context(Sandbox(processes, self.settings.max_children))
        farm = f"{self.settings.safe_url} {self.settings.namespace}"
        self._recordings = self._stack.enter_context(Recordings(farm, self.settings.recordings))
        nursery = Nursery(processes, self._allowed.lists, self._recordings)
        children = await self._stack.enter_async_context(
            FuzzChildren(processes, self.settings.max_children, nursery=nursery)
        )
        renewals = self._stack.enter_context(RenewalThread(self.settings, asyncio.get_running_loop()))
        self.station = Station(
            name=self.name,
            settings=self.settings,
            signer=self.settings.signer,
            store=self.store,
            telling=TellingStore(self.server, self.settings.signer),
            kernel=self.kernel,
            intake=self.intake,
            renewals=renewals,
            tools=Tools(self._allowed, processes, sandbox),
            children=children,
            nursery=nursery,
        )
        # Before the first pop: a take-over in the same moment would take the job that was popped for a dropped one.
        await self._report_and_take_over()
        self._tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._reaper.run())]
        log.info("worker started", worker=self.name, server=self.settings.safe_url, slots=self.kernel.max_concurrency)

    def leave(self) -> None:
        """Take nothing more, let what runs end within the grace period, and hand back the rest.

        Called again, end the grace period.
        """
        self.leaving = True
        self.intake.close()
        for attempt in self._attempts:
            attempt.leave()

    async def stop(self) -> None:
        """Stop everything that belongs to this worker."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._stack.aclose()
        self.kernel.close()
        await self.server.client.aclose()
        log.info("worker stopped", worker=self.name)

    async def run_attempt(self, job_id: str) -> bool:
        """Claim the chunk of an arq job and do its work; raises only CancelledError, when it was cancelled.

        Returns False when nobody knows whether it was claimed, because the server did not say: the job has to stay.
        """
        attempt_id = AttemptId.parse(job_id)
        answered = False
        try:
            claim = await self.store.claim(attempt_id)
            answered = True
            if isinstance(claim, Claim):
                await self._run_claim(claim)
            elif isinstance(claim, Refused):
                self.intake.pause(self.settings.share_after_s)
        except FuzzfarmError as exc:
            log.error("a chunk was left to be taken over", chunk=job_id, reason=str(exc))
        except Exception:
            # The lease runs out and another worker goes on; after many of these the operation gets an error.
            log.exception("a chunk was left to be taken over", chunk=job_id)
        finally:
            self.intake.end(attempt_id)
        return answered

    async def _run_claim(self, claim: Claim) -> None:
        tools = self.station.tools
        workplace.enter(workplace.Workplace(tools.processes, tools.allowed))  # of this task, and of all that it starts
        self.intake.begin(claim.id, claim.lane)
        attempt = Attempt(self.station, claim, work_of)
        attempt.stopping = self.leaving  # told to go while the server was asked: all of it is handed back
        self._attempts.add(attempt)
        try:
            await attempt.run()
        finally:
            self._attempts.discard(attempt)

    async def _beat(self) -> None:
        """Report and take over until cancelled; a worker whose heartbeat ends, ends."""
        try:
            while True:
                await asyncio.sleep(min(HEARTBEAT_EVERY_S, self.settings.lease_s / 3))
                await self._report_and_take_over()
        except FuzzfarmError as exc:
            log.error("the heartbeat ended, and so does this worker", reason=str(exc))
            signal.raise_signal(signal.SIGTERM)
        except Exception:
            log.exception("the heartbeat ended, and so does this worker")
            signal.raise_signal(signal.SIGTERM)

    async def _report_and_take_over(self) -> None:
        self.intake.press(self._pressure.look())
        await self._tell_of_the_dead()  # before their chunks are taken over
        found = await self.store.take_over(self._report(), HEARTBEAT_TTL_S)
        if found.freed or found.woken:
            log.warning("chunks of dead workers run again", freed=found.freed, woken=found.woken)
        for batch in found.due:
            self._reaper.add(batch)

    async def _tell_of_the_dead(self) -> None:
        try:
            for dead in self._recordings.of_the_dead():
                await self._tell_what_ran(dead)
        except OSError as exc:
            log.warning("recorders of dead workers cannot be read", reason=str(exc))

    async def _tell_what_ran(self, dead: Dead) -> None:
        """Tell the farm what the recorders of a dead worker say, and remove them."""
        for recording in dead.recordings():
            try:
                attempt = AttemptId.parse(recording.owner)
            except ValueError:
                log.warning("a recorder of a dead worker is damaged", folder=str(dead.folder))
                continue
            useful = await self.store.suspect(attempt, recording.first, recording.last)
            log.warning(
                "a worker died while examples ran",
                chunk=recording.owner,
                first=recording.first,
                last=recording.last,
                useful=useful,
            )
        dead.forget()

    def _report(self) -> bytes:
        report = WorkerReport(
            name=self.name,
            host=self.settings.name,
            pid=os.getpid(),
            version=VERSION,
            python=platform.python_version(),
            max_concurrency=self.kernel.max_concurrency,
            running=self.kernel.running,
            chunks=len(self._attempts),
            operations_done=self.station.operations_done,
            memory_bytes=resident_bytes(),
            memory_free=self._pressure.free_share,
            under_pressure=self._pressure.is_on,
            warnings=self._warnings,
            load=os.getloadavg()[0],
            started_at=self._started_at,
            reported_at=time.time(),
        )
        return report.model_dump_json().encode()
