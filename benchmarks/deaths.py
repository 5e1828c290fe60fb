"""What becomes of a batch when a worker dies or stands still in the middle of it, or the server goes away."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass
from math import inf

from breakable import WAIT_S, Books, BreakableFarm, books, is_stopped, until, worker_pid

from fuzzfarm import Batch, CallOperation

OPERATIONS = 2_000
PAUSE_S = 0.01
SHARED = {"chunk_operations": 100, "max_concurrency": 5}
"""Settings with which two workers share 2,000 operations for two seconds, so that there is a middle."""

MIDDLE = OPERATIONS + 110
"""Two notes for each operation: the middle, and half a chunk more, so that each worker has work in hand."""

STOPPED_S = 8.0
MANY_OPERATIONS = 100_000
AWAY_S = 1.0
"""How long the server is away: workers run dry meanwhile."""

FSYNC_S = 1.0
"""What appendfsync everysec may lose when the power fails."""


@dataclass(frozen=True, slots=True)
class Killed:
    """What became of a batch one of whose two workers was killed; times in seconds after the kill."""

    books: Books
    run_again_s: float
    done_s: float
    again: int
    """Executions beyond the first of their operation."""
    allowed: int
    """Operations that the dead worker had ended in its last second, or had in flight."""


async def kill_a_worker(farm: BreakableFarm, chunk_operations: int, max_concurrency: int) -> Killed:
    with farm.workers(2, max_concurrency=max_concurrency) as workers:
        async with farm.connect(chunk_operations=chunk_operations) as client:
            batch = await client.submit(farm.pauses(OPERATIONS, PAUSE_S))
            await until(lambda: farm.noted() >= MIDDLE)
            victim = farm.busiest(workers)
            victim.kill()
            killed_at = time.monotonic()
            found = await books(batch, OPERATIONS)
            done_s = time.monotonic() - killed_at
    notes = farm.notes()
    starts = Counter(note.number for note in notes if note.started)
    in_flight = farm.in_flight(victim.pid)
    again = [note.at for note in notes if note.started and note.at > killed_at and starts[note.number] > 1]
    ended = [note for note in notes if note.pid == victim.pid and not note.started and note.at > killed_at - 1]
    return Killed(
        books=found,
        run_again_s=min(again) - killed_at if again else 0.0 if not in_flight else inf,
        done_s=done_s,
        again=starts.total() - len(starts),
        allowed=len(ended) + len(in_flight),
    )


@dataclass(frozen=True, slots=True)
class Stopped:
    """What became of a worker that stood still beyond its lease."""

    books: Books
    held: int
    """Operations that it had in flight when it stopped."""
    recorded: int
    """How many of them were recorded from it."""
    late: int
    goes_on: bool
    """Whether it ran operations of a later batch."""


async def stop_a_worker(farm: BreakableFarm) -> Stopped:
    with farm.workers(2, max_concurrency=SHARED["max_concurrency"]) as workers:
        async with farm.connect(chunk_operations=SHARED["chunk_operations"]) as client:
            batch = await client.submit(farm.pauses(OPERATIONS, PAUSE_S))
            await until(lambda: farm.noted() >= MIDDLE)
            zombie = farm.busiest(workers)
            zombie.send_signal(signal.SIGSTOP)
            await until(lambda: is_stopped(zombie.pid))
            held = farm.in_flight(zombie.pid)
            await asyncio.sleep(STOPPED_S)
            zombie.send_signal(signal.SIGCONT)
            found = await books(batch, OPERATIONS)
            recorded = await _recorded_by(zombie.pid, batch)
            later = await client.submit(CallOperation.many("bench_targets:pause", [PAUSE_S] * OPERATIONS))
            goes_on = bool(await _recorded_by(zombie.pid, later))
            late = (await batch.status()).late_duplicates
    return Stopped(found, len(held), len(held & recorded), late, goes_on)


async def _recorded_by(pid: int, batch: Batch) -> set[int]:
    """Wait for a batch and return the operations whose outcomes one worker recorded."""
    async with asyncio.timeout(WAIT_S):
        segments = [segment async for segment in batch.segments() if worker_pid(segment.worker) == pid]
    return {int(key) for segment in segments for key in segment.operation_keys()}


@dataclass(frozen=True, slots=True)
class Restarted:
    """What became of a batch whose server went away and came back."""

    books: Books
    again: int
    """Operations that ran again although their outcome had been read."""
    window: int
    """Operations whose outcomes were read in the last second of the server."""
    busy_s: float
    """Seconds from the start of the new server to the first operation of the worker that came later."""


async def restart_the_server(farm: BreakableFarm, *, kill: bool) -> Restarted:
    read: dict[int, float] = {}

    async def reader(batch: Batch) -> None:
        async for segment in batch.segments():
            now = time.monotonic()
            for key in segment.operation_keys():
                read.setdefault(int(key), now)

    with farm.workers(2, max_concurrency=100) as workers:
        async with farm.connect(chunk_operations=500) as client, asyncio.TaskGroup() as tasks:
            batch = await client.submit(farm.pauses(MANY_OPERATIONS, PAUSE_S))
            reading = tasks.create_task(reader(batch))
            await until(lambda: len(read) >= MANY_OPERATIONS * 0.3)
            gone_at = time.monotonic()
            await asyncio.to_thread(farm.take_server_away, kill=kill)
            await asyncio.sleep(AWAY_S)
            back_at = time.monotonic()
            await asyncio.to_thread(farm.server.start)
            async with asyncio.timeout(WAIT_S):
                await reading
            found = await books(batch, MANY_OPERATIONS)
    before = {number: at for number, at in read.items() if at < back_at}
    starts = [note for note in farm.notes() if note.started and note.at > back_at]
    first = {note.pid: note.at for note in sorted(starts, key=lambda note: -note.at)}
    return Restarted(
        books=found,
        again=sum(note.number in before for note in starts),
        window=sum(at > gone_at - FSYNC_S for at in before.values()),
        busy_s=max(first.get(worker.pid, inf) for worker in workers) - back_at,
    )
