"""Hang detection: when is a process hung, and what happens then."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

import pytest
from children import SLEEPS, python

from fuzzfarm_worker.processes import (
    ProcessConfig,
    ProcessEvent,
    ProcessEventKind,
    ProcessManager,
    ProcessWatchdog,
    WatchdogConfig,
)
from fuzzfarm_worker.processes.watchdog import MOST_HANGING

#: SIGKILL is far off, so that a busy machine never skips SIGTERM.
QUICK = WatchdogConfig(check_interval=0.02, process_timeout=0.3, extra_buffer=0.1, max_hang_time=25.0)
REPORT_ONLY = WatchdogConfig(
    check_interval=0.02, process_timeout=0.1, extra_buffer=0.0, max_hang_time=0.1, auto_kill=False
)


class Watch:
    """A watchdog over asyncio's own processes, and the events it sends."""

    def __init__(self, config: WatchdogConfig) -> None:
        self.events: list[ProcessEvent] = []
        self.news = asyncio.Event()
        self.watchdog = ProcessWatchdog(config, on_event=self.note)
        self.processes: list[asyncio.subprocess.Process] = []

    def note(self, event: ProcessEvent) -> None:
        self.events.append(event)
        self.news.set()

    async def start(self, command: list[str], callback=None, **options) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        self.processes.append(process)
        await self.watchdog.register_process(process.pid, process, callback, "watched", **options)
        return process

    async def until(self, kind: ProcessEventKind) -> ProcessEvent:
        while True:
            for event in self.events:
                if event.kind is kind:
                    return event
            self.news.clear()
            await self.news.wait()


def watching(config: WatchdogConfig, test) -> None:
    async def main() -> None:
        watch = Watch(config)
        try:
            async with watch.watchdog:
                await asyncio.wait_for(test(watch), 30)
        finally:
            for process in watch.processes:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    asyncio.run(main())


async def checks(watch: Watch, count: int) -> None:
    """Return after so many further looks at the processes."""
    target = (await watch.watchdog.get_stats())["checks"] + count
    while (await watch.watchdog.get_stats())["checks"] < target:
        await asyncio.sleep(watch.watchdog.config.check_interval)


def test_a_silent_process_is_reported_and_then_asked_to_end():
    async def test(watch: Watch) -> None:
        process = await watch.start(SLEEPS)
        assert await process.wait() == -signal.SIGTERM
        hung, killed = watch.events
        assert (hung.kind, hung.pid, hung.name) == (ProcessEventKind.HUNG, process.pid, "watched")
        assert killed.kind is ProcessEventKind.KILLED
        assert "SIGTERM" in killed.detail

    watching(QUICK, test)


def test_a_process_that_ignores_the_request_is_killed_at_max_hang_time():
    async def test(watch: Watch) -> None:
        began = time.monotonic()
        # asyncio's kill() reaches this one program only, so it must have no children.
        process = await watch.start(
            python("import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: signal.pause()")
        )
        assert await process.wait() == -signal.SIGKILL
        assert time.monotonic() - began >= 1.5
        assert [event.kind for event in watch.events].count(ProcessEventKind.HUNG) == 1

    # The program must ignore SIGTERM before the request comes.
    config = WatchdogConfig(check_interval=0.02, process_timeout=1.0, extra_buffer=0.1, max_hang_time=1.5)
    watching(config, test)


def test_without_auto_kill_a_hung_process_is_only_reported():
    async def test(watch: Watch) -> None:
        process = await watch.start(SLEEPS)
        await watch.until(ProcessEventKind.HUNG)
        await checks(watch, 10)
        assert process.returncode is None
        assert [event.kind for event in watch.events] == [ProcessEventKind.HUNG]
        assert (await watch.watchdog.get_stats())["hung_processes"] == 1

    watching(REPORT_ONLY, test)


def test_auto_kill_can_be_off_for_one_process():
    async def test(watch: Watch) -> None:
        spared = await watch.start(SLEEPS, auto_kill=False)
        doomed = await watch.start(SLEEPS)
        assert await doomed.wait() == -signal.SIGTERM
        await checks(watch, 10)
        assert spared.returncode is None

    watching(QUICK, test)


def test_update_activity_keeps_a_process_alive():
    async def test(watch: Watch) -> None:
        process = await watch.start(SLEEPS)
        for _ in range(20):
            await watch.watchdog.update_activity(process.pid)
            await asyncio.sleep(0.02)
        assert process.returncode is None
        assert watch.events == []
        assert await process.wait() == -signal.SIGTERM

    watching(QUICK, test)


@pytest.mark.parametrize("kind", ["sync", "async", "returns an awaitable"])
def test_a_callback_that_tells_of_activity_keeps_a_process_alive(kind):
    async def later() -> float:
        await asyncio.sleep(0)
        return time.time()

    callback = {"sync": time.time, "async": later, "returns an awaitable": (lambda: later())}[kind]  # noqa: PLW0108 - not a coroutine function

    async def test(watch: Watch) -> None:
        process = await watch.start(SLEEPS, callback)
        await checks(watch, 20)
        assert process.returncode is None
        assert watch.events == []

    watching(QUICK, test)


def test_a_callback_that_tells_of_old_activity_does_not():
    async def test(watch: Watch) -> None:
        process = await watch.start(SLEEPS, lambda: time.time() - 100)
        assert await process.wait() == -signal.SIGTERM

    watching(QUICK, test)


def test_a_time_in_the_future_is_now():
    async def test(watch: Watch) -> None:
        answers = iter([time.time() + 10_000])
        process = await watch.start(SLEEPS, lambda: next(answers, 0.0))
        assert await process.wait() == -signal.SIGTERM

    watching(QUICK, test)


@pytest.mark.parametrize("answer", [ZeroDivisionError("broken"), float("nan"), "yesterday"], ids=str)
def test_a_bad_callback_is_counted_and_stops_nothing(answer, caplog):
    def bad() -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def test(watch: Watch) -> None:
        process = await watch.start(SLEEPS, bad)
        other = await watch.start(SLEEPS)
        assert await process.wait() == -signal.SIGTERM
        assert await other.wait() == -signal.SIGTERM
        assert (await watch.watchdog.get_stats())["callback_errors"] > 0

    watching(QUICK, test)
    assert "activity callback" in caplog.text


class Hangs:
    """An activity callback that hangs the first so many times; and after that tells of activity."""

    def __init__(self, kind: str, times: int) -> None:
        self.times = times
        self.calls = 0
        self.release = threading.Event()
        self.callback = {"sync": self.sync, "async": self.later}[kind]

    def sync(self) -> float:
        self.calls += 1
        if self.calls <= self.times:
            self.release.wait(30)
        return time.time()

    async def later(self) -> float:
        self.calls += 1
        if self.calls <= self.times:
            await asyncio.Event().wait()
        return time.time()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_callback_that_hangs_stops_nothing(kind, monkeypatch):
    monkeypatch.setattr("fuzzfarm_worker.processes.watchdog.CALLBACK_WAIT_S", 0.05)
    hangs = Hangs(kind, 1000)

    async def test(watch: Watch) -> None:
        process = await watch.start(SLEEPS, hangs.callback)
        other = await watch.start(SLEEPS)
        assert await other.wait() == -signal.SIGTERM
        assert await process.wait() == -signal.SIGTERM
        assert hangs.calls == 1

    try:
        watching(QUICK, test)
    finally:
        hangs.release.set()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_one_answer_that_is_lost_harms_no_process_and_is_counted(kind, monkeypatch):
    monkeypatch.setattr("fuzzfarm_worker.processes.watchdog.CALLBACK_TIMEOUT_S", 0.05)
    hangs = Hangs(kind, 1)

    async def test(watch: Watch) -> None:
        process = await watch.start(SLEEPS, hangs.callback)
        await checks(watch, 50)
        assert process.returncode is None
        assert watch.events == []
        assert (await watch.watchdog.get_stats())["callback_hangs"] == 1
        assert hangs.calls > 10

    try:
        watching(WatchdogConfig(check_interval=0.02, process_timeout=0.5, extra_buffer=0.1), test)
    finally:
        hangs.release.set()


def test_threads_that_hang_are_bounded(monkeypatch):
    monkeypatch.setattr("fuzzfarm_worker.processes.watchdog.CALLBACK_TIMEOUT_S", 0.02)
    hangs = Hangs("sync", 1000)

    async def test(watch: Watch) -> None:
        await watch.start(SLEEPS, hangs.callback)
        await checks(watch, 50)
        assert hangs.calls == MOST_HANGING
        assert (await watch.watchdog.get_stats())["callback_hangs"] == MOST_HANGING

    try:
        watching(REPORT_ONLY, test)
    finally:
        hangs.release.set()


def test_a_callback_that_hangs_does_not_slow_down_the_looks():
    async def test(watch: Watch) -> None:
        await watch.start(SLEEPS, Hangs("async", 1000).callback)
        async with asyncio.timeout(5):
            await checks(watch, 20)

    watching(REPORT_ONLY, test)


def test_many_hung_processes_end_together():
    async def test(watch: Watch) -> None:
        began = time.monotonic()
        processes = [await watch.start(SLEEPS) for _ in range(20)]
        assert {await process.wait() for process in processes} == {-signal.SIGTERM}
        assert time.monotonic() - began < 5
        assert (await watch.watchdog.get_stats())["terminated"] == 20

    watching(QUICK, test)


def test_the_watchdog_ends_whole_trees_of_a_manager():
    async def main() -> None:
        async with ProcessManager(QUICK) as manager:
            command = ["sh", "-c", "sleep 1000 & setsid sleep 1000 & wait"]
            process = await manager.start_process(ProcessConfig(command=command, timeout=0.1))
            assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGTERM
            assert (await manager.get_process_status(process.pid))["status"] == "stopped"

    asyncio.run(main())


def test_a_limit_beyond_max_hang_time_is_honoured():
    async def test(watch: Watch) -> None:
        process = await watch.start(SLEEPS, timeout=1.0)
        began = time.monotonic()
        assert await process.wait() == -signal.SIGTERM
        assert time.monotonic() - began >= 2.0

    watching(WatchdogConfig(check_interval=0.02, extra_buffer=1.0, max_hang_time=0.5), test)


def test_an_unregistered_process_is_left_alone():
    async def test(watch: Watch) -> None:
        process = await watch.start(SLEEPS)
        assert await watch.watchdog.is_process_registered(process.pid)
        await watch.watchdog.unregister_process(process.pid)
        await watch.watchdog.unregister_process(process.pid)
        assert not await watch.watchdog.is_process_registered(process.pid)
        await checks(watch, 20)
        assert process.returncode is None

    watching(QUICK, test)


def test_an_ended_process_is_forgotten():
    async def test(watch: Watch) -> None:
        process = await watch.start(["true"])
        await process.wait()
        await checks(watch, 1)
        assert not await watch.watchdog.is_process_registered(process.pid)
        assert (await watch.watchdog.get_stats())["total_processes"] == 0

    watching(QUICK, test)


def test_start_and_stop_may_be_repeated():
    async def main() -> None:
        watchdog = ProcessWatchdog()
        assert not (await watchdog.get_stats())["watchdog_active"]
        for _ in range(2):
            await watchdog.start()
            await watchdog.start()
            assert (await watchdog.get_stats())["watchdog_active"]
            await watchdog.stop()
            await watchdog.stop()
            assert not (await watchdog.get_stats())["watchdog_active"]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_thresholds_must_make_sense():
    with pytest.raises(ValueError, match="check_interval"):
        WatchdogConfig(check_interval=0)
    with pytest.raises(ValueError, match="negative"):
        WatchdogConfig(process_timeout=-1)
