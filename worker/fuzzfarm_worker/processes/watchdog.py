"""Notices processes that hang, and ends them.

A process is as old as its last sign of life: output, ``update_activity``, or what its callback says. The watchdog owns
these ages and nothing else; whether a process still runs is asked of the process itself.

        age:  0 ......... limit ......... limit + extra_buffer ......... max_hang_time
              active      hung (event)    SIGTERM to the group           SIGKILL to the tree
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from fuzzfarm_worker.processes.config import ActivityCallback, WatchdogConfig
from fuzzfarm_worker.processes.events import EventCallback, ProcessEvent, ProcessEventKind, emit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)

#: A process is not judged while its callback has been asked for less than this; a slower answer still counts.
CALLBACK_WAIT_S = 1.0
#: A callback that takes longer is given up, and asked again at the next look: one lost answer must not end a process.
CALLBACK_TIMEOUT_S = 5.0
#: So many threads of sync callbacks, which nothing can end, may hang for one process before it is asked no more.
MOST_HANGING = 3


class Watchable(Protocol):
    """What the watchdog needs of a process; asyncio's and the manager's both have it."""

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...

    def kill(self) -> None:
        """End it."""
        ...


@dataclass(slots=True)
class _Watched:
    """The ages of one process and what was already done about them; times of the monotonic clock."""

    pid: int
    process: Watchable
    name: str
    callback: ActivityCallback | None
    limit_s: float
    auto_kill: bool
    active_at: float
    reported: bool = False
    terminated: bool = False
    killed: bool = False
    asking: asyncio.Task[None] | None = None
    asked_at: float = 0.0
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def may_be_asked(self) -> bool:
        """Whether its callback has answered, or was given up, and not too often."""
        self.threads = [thread for thread in self.threads if thread.is_alive()]
        return self.callback is not None and self.asking is None and len(self.threads) < MOST_HANGING

    def touch(self, at: float) -> None:
        if at > self.active_at:
            self.active_at = at
            # A process that came back is watched afresh; a SIGTERM already sent is not taken back.
            self.reported = False


class ProcessWatchdog:
    """Looks at registered processes once per ``check_interval`` and deals with those that hang.

    Args:
        config: Thresholds.
        on_event: Told when a process is hung or killed.
    """

    def __init__(self, config: WatchdogConfig | None = None, *, on_event: EventCallback | None = None) -> None:
        self.config = config or WatchdogConfig()
        self._on_event = on_event
        self._watched: dict[int, _Watched] = {}
        self._loop_task: asyncio.Task[None] | None = None
        self._counts = {"checks": 0, "hung": 0, "terminated": 0, "killed": 0, "callback_errors": 0, "callback_hangs": 0}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to look; nothing happens when it already does."""
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._watch(), name="process-watchdog")

    async def stop(self) -> None:
        """Stop looking and forget all processes; they go on running."""
        tasks = [watched.asking for watched in self._watched.values() if watched.asking is not None]
        self._watched.clear()
        if self._loop_task is not None:
            tasks.append(self._loop_task)
            self._loop_task = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CALLBACK_TIMEOUT_S)  # a callback may refuse to be cancelled

    async def register_process(
        self,
        pid: int,
        process: Watchable,
        activity_callback: ActivityCallback | None,
        name: str,
        *,
        timeout: float | None = None,
        auto_kill: bool = True,
    ) -> None:
        """Watch a process from now on.

        Args:
            pid: Its process id, the key for all other methods.
            process: What is asked to end; a process of the manager ends with its whole tree.
            activity_callback: Returns ``time.time()`` of the last activity; sync (called in a thread) or async.
            name: For logs and events.
            timeout: Inactivity limit in seconds instead of ``process_timeout``.
            auto_kill: False only reports this process.
        """
        self._watched[pid] = _Watched(
            pid=pid,
            process=process,
            name=name,
            callback=activity_callback,
            limit_s=self.config.process_timeout if timeout is None else timeout,
            auto_kill=auto_kill and self.config.auto_kill,
            active_at=time.monotonic(),
        )

    async def unregister_process(self, pid: int) -> None:
        """Stop watching a process; nothing happens when it is not registered."""
        self.forget(pid)

    def forget(self, pid: int) -> None:
        """:meth:`unregister_process` for callbacks that cannot await."""
        watched = self._watched.pop(pid, None)
        if watched is not None and watched.asking is not None:
            watched.asking.cancel()

    async def update_activity(self, pid: int) -> None:
        """The process is alive right now."""
        self.touch(pid)

    def touch(self, pid: int) -> None:
        """:meth:`update_activity` for callbacks that cannot await."""
        watched = self._watched.get(pid)
        if watched is not None:
            watched.touch(time.monotonic())

    async def is_process_registered(self, pid: int) -> bool:
        """Whether it is being watched."""
        return pid in self._watched

    async def get_stats(self) -> dict[str, Any]:
        """Counts since the start, and the processes that are hung now."""
        now = time.monotonic()
        running = [watched for watched in self._watched.values() if watched.process.returncode is None]
        return {
            "total_processes": len(self._watched),
            "running_processes": len(running),
            "hung_processes": sum(now - watched.active_at >= watched.limit_s for watched in running),
            "watchdog_active": self._loop_task is not None and not self._loop_task.done(),
            **self._counts,
        }

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.config.check_interval)
            try:
                await self._look()
            except Exception:  # noqa: BLE001 - the watchdog must outlive whatever one look meets
                _log.exception("watchdog: a look at the processes failed")

    async def _look(self) -> None:
        self._counts["checks"] += 1
        for pid in [pid for pid, watched in self._watched.items() if watched.process.returncode is not None]:
            self.forget(pid)
        now = time.monotonic()
        for watched in list(self._watched.values()):
            if watched.may_be_asked:
                watched.asked_at = now
                watched.asking = asyncio.create_task(self._ask(watched))
            elif watched.asking is None or now - watched.asked_at >= CALLBACK_WAIT_S:
                self._judge(watched)

    async def _ask(self, watched: _Watched) -> None:
        """Ask the callback of a process, and judge it then; nobody waits for this."""
        bound = asyncio.timeout(CALLBACK_TIMEOUT_S)
        try:
            async with bound:
                answer = await _call(watched)
            watched.touch(time.monotonic() - _age_s(answer))
        except Exception:  # noqa: BLE001 - one bad callback must not stop the watch over the others
            self._counts["callback_hangs" if bound.expired() else "callback_errors"] += 1
            _log.exception("watchdog: activity callback of process %d (%s) failed", watched.pid, watched.name)
        finally:
            watched.asking = None
        self._judge(watched)

    def _judge(self, watched: _Watched) -> None:
        if watched.process.returncode is None:
            try:
                self._act(watched, time.monotonic() - watched.active_at)
            except Exception:  # noqa: BLE001 - the others must be judged all the same
                _log.exception("watchdog: process %d (%s) could not be ended", watched.pid, watched.name)

    def _act(self, watched: _Watched, age_s: float) -> None:
        if age_s < watched.limit_s:
            return
        if not watched.reported:
            watched.reported = True
            self._counts["hung"] += 1
            self._tell(watched, ProcessEventKind.HUNG, f"no activity for {age_s:.1f} s")
        if not watched.auto_kill:
            return
        terminate_at_s = watched.limit_s + self.config.extra_buffer
        # A process with a longer limit of its own is not killed before that limit: it gets a second buffer instead.
        patient = watched.limit_s >= self.config.max_hang_time
        kill_at_s = terminate_at_s + self.config.extra_buffer if patient else self.config.max_hang_time
        if age_s >= kill_at_s and not watched.killed:
            watched.killed = True
            self._counts["killed"] += 1
            watched.process.kill()
            self._tell(watched, ProcessEventKind.KILLED, f"SIGKILL after {age_s:.1f} s without activity")
        elif age_s >= terminate_at_s and not watched.terminated:
            watched.terminated = True
            self._counts["terminated"] += 1
            watched.process.terminate()
            self._tell(watched, ProcessEventKind.KILLED, f"SIGTERM after {age_s:.1f} s without activity")

    def _tell(self, watched: _Watched, kind: ProcessEventKind, detail: str) -> None:
        _log.warning("process %d (%s) %s: %s", watched.pid, watched.name, kind, detail)
        if self._on_event is not None:
            emit(self._on_event, ProcessEvent(kind, watched.pid, watched.name, detail))


def _age_s(wall: float) -> float:
    """How long ago ``time.time()`` was ``wall``; a time in the future, after a step of the clock, is now."""
    age_s = max(time.time() - wall, 0.0)
    if not math.isfinite(age_s):
        raise ValueError(f"activity callback returned {wall!r}")
    return age_s


async def _call(watched: _Watched) -> float:
    """Call an activity callback so that it cannot block the loop; awaits an awaitable it returns."""
    callback = watched.callback
    assert callback is not None  # noqa: S101 - the caller looked
    if inspect.iscoroutinefunction(callback):
        return cast("float", await callback())
    called = _call_in_thread(callback, watched.threads)
    try:
        answer = await called
    except asyncio.CancelledError:
        if called.done() and not called.cancelled() and called.exception() is None:
            _close(called.result())
        raise
    return await answer if inspect.isawaitable(answer) else answer


def _call_in_thread(
    callback: ActivityCallback, threads: list[threading.Thread]
) -> asyncio.Future[float | Awaitable[float]]:
    # A thread of its own, and a daemon: a callback that never returns must hold up neither a pool nor the exit.
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[float | Awaitable[float]] = loop.create_future()

    def settle(settle_with: Callable[[Any], None], value: object) -> None:
        if not answer.done():
            settle_with(value)
        else:
            _close(value)

    def call() -> None:
        try:
            value = callback()
        except Exception as error:  # noqa: BLE001 - handed to the awaiting task
            _hand_over(loop, settle, answer.set_exception, error)
        else:
            _hand_over(loop, settle, answer.set_result, value)

    thread = threading.Thread(target=call, name="activity-callback", daemon=True)
    threads.append(thread)
    thread.start()
    return answer


def _close(answer: object) -> None:
    """Nobody waits for this answer any more."""
    if inspect.iscoroutine(answer):
        answer.close()


def _hand_over(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: object) -> None:
    # The callback may have taken longer than the loop lived; then nobody waits for its answer.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *args)
