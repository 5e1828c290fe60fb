"""Reading: the live workers of a farm and its queue, by plain commands, which a full server answers too."""

from __future__ import annotations

from fuzzfarm_shared import arq_queue
from fuzzfarm_shared.reports import HEARTBEAT_TTL_S, QueueReport, WorkerReport
from fuzzfarm_shared.store.server import Server

HEADS = 16
"""Attempts looked at for the oldest that waits: some may be claimed between our two requests."""


class FarmReadings:
    """What anyone may ask of the farm."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._keys = server.settings.keys

    async def workers(self) -> list[WorkerReport]:
        """Return the last report of every worker that sent one within `HEARTBEAT_TTL_S`, by name."""
        now_s = await self._server.time_s()
        oldest_ms = int((now_s - HEARTBEAT_TTL_S) * 1000)
        reply = await self._server.call("ZRANGEBYSCORE", self._keys.workers, oldest_ms, "+inf", "WITHSCORES")
        beats = {name.decode(): float(ms) / 1000 for name, ms in zip(reply[::2], reply[1::2], strict=True)}
        if not beats:
            return []
        raw = await self._server.call("MGET", *map(self._keys.worker, beats))
        reports = zip(raw, beats.values(), strict=True)
        return sorted(
            (_report(report, beat_s, now_s) for report, beat_s in reports if report is not None),
            key=lambda report: report.name,
        )

    async def queue(self) -> QueueReport:
        """Return what waits and what runs."""
        lists = self._keys.wake_lists()
        commands: list[tuple[str | int, ...]] = [("TIME",), ("ZCARD", self._keys.leases)]
        for name in lists:
            commands += [("LLEN", name), ("LRANGE", name, 0, HEADS - 1)]
        (seconds, micros), running, *replies = await self._server.read(commands)
        waiting = dict.fromkeys(lists.values(), 0)
        for lane, depth in zip(lists.values(), replies[::2], strict=True):
            waiting[lane] += depth
        queued_ms = [since for heads in replies[1::2] if (since := await self._queued_ms(heads)) is not None]
        now_s = int(seconds) + int(micros) / 1_000_000
        return QueueReport(
            waiting=sum(waiting.values()),
            waiting_by_lane=waiting,
            running=running,
            age_s=max(0.0, now_s - min(queued_ms) / 1000) if queued_ms else None,
        )

    async def _queued_ms(self, heads: list[bytes]) -> int | None:
        """Return when the first of these attempts that still waits was queued (server ms); None: none of them waits."""
        if not heads:
            return None
        jobs = await self._server.call("MGET", *(f"{arq_queue.JOB_PREFIX}{head.decode()}" for head in heads))
        return next((int(arq_queue.deserialize_job(job)["et"]) for job in jobs if job is not None), None)


def _report(raw: bytes, beat_s: float, now_s: float) -> WorkerReport:
    report = WorkerReport.model_validate_json(raw)
    seen = {"heartbeat_age_s": max(0.0, now_s - beat_s), "clock_ahead_s": report.reported_at - beat_s}
    return report.model_copy(update=seen)
