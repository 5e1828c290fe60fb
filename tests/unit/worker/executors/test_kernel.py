"""The kernel: one outcome per operation, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from event_loops import LOOPS

from fuzzfarm_worker.executors import threads as threads_module
from fuzzfarm_worker.executors.errors import OperationTimeoutError, ThreadsExhaustedError
from fuzzfarm_worker.executors.kernel import Call, Kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Outcomes(dict[int, tuple[bool, Any, int]]):
    """Outcomes by index; a second one for the same index is an error."""

    def record(self, index: int, ok: bool, value: Any, attempt: int, started: float, duration_s: float) -> None:
        assert index not in self
        assert duration_s >= 0
        assert started <= time.monotonic()
        self[index] = (ok, value, attempt)


def call(
    fn: Callable[..., Any], *args: Any, timeout_s: float | None = 10.0, retries: int = 0, delay_s: float = 0.0
) -> Call:
    return (0, fn, args, None, timeout_s, retries, delay_s)


def numbered(calls: list[Call]) -> Iterator[Call]:
    return ((index, *given[1:]) for index, given in enumerate(calls))  # type: ignore[misc]


async def outcomes_of(calls: list[Call], kernel: Kernel | None = None) -> Outcomes:
    kernel = kernel or Kernel(4)
    outcomes = Outcomes()
    await kernel.run(numbered(calls), outcomes.record)
    assert kernel.free_slots == kernel.max_concurrency
    assert kernel.running == 0
    kernel.close()
    return outcomes


async def forever() -> None:
    await asyncio.Event().wait()


async def double(number: int) -> int:
    return number * 2


async def until(condition: Callable[[], bool]) -> None:
    """For what announces itself by no event: a thread that ends, a slot that is taken."""
    while not condition():
        await asyncio.sleep(0.001)


class Gauge:
    """Counts operations that are inside at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


def test_coroutine_functions_sync_functions_partials_objects_and_lambdas_all_work(run: Any) -> None:
    class AsyncObject:
        async def __call__(self, number: int) -> int:
            return number * 2

    class SyncObject:
        def __call__(self, number: int) -> int:
            return number * 2

        async def method(self, number: int) -> int:
            return number * 2

    operations = [
        double,
        partial(double, 21),
        double,
        lambda number: number * 2,
        AsyncObject(),
        SyncObject(),
        SyncObject().method,
        partial(double, 21),
    ]
    calls = [call(fn, *(() if isinstance(fn, partial) else (21,))) for fn in operations]
    outcomes = run(outcomes_of(calls))
    assert outcomes == dict.fromkeys(range(len(operations)), (True, 42, 1))


@pytest.mark.parametrize(
    "error", [ValueError, asyncio.CancelledError, SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit]
)
def test_whatever_an_operation_raises_is_its_own_error_and_costs_no_other_outcome(run: Any, error: Any) -> None:
    def fail() -> None:
        raise error

    async def fail_async() -> None:
        await asyncio.sleep(0)
        raise error

    outcomes = run(outcomes_of([call(double, 1), call(fail), call(fail_async), call(double, 2), call(fail_async)]))
    assert outcomes[0] == (True, 2, 1)
    assert outcomes[3] == (True, 4, 1)
    for index in (1, 2, 4):
        ok, value, _ = outcomes[index]
        # PEP 479: a coroutine cannot raise StopIteration, Python makes it a RuntimeError.
        assert not ok
        assert isinstance(value, (error, RuntimeError) if error is StopIteration else error)


def test_an_operation_that_passes_its_deadline_is_cancelled_and_timed_out(run: Any) -> None:
    outcomes = run(outcomes_of([call(forever, timeout_s=0.02), call(double, 1)]))
    ok, error, _ = outcomes[0]
    assert not ok
    assert isinstance(error, OperationTimeoutError)
    assert error.timeout_s == 0.02
    assert outcomes[1] == (True, 2, 1)


def test_an_operation_that_swallows_its_cancellation_counts_as_timed_out(run: Any) -> None:
    async def swallow() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await forever()
        return "late"

    async def fail_in_cleanup() -> None:
        try:
            await forever()
        finally:
            raise ValueError("cleanup")

    calls = [call(swallow, timeout_s=0.02), call(fail_in_cleanup, timeout_s=0.02), call(double, 1)]
    outcomes = run(outcomes_of(calls, Kernel(1)))
    assert isinstance(outcomes[0][1], OperationTimeoutError)
    assert isinstance(outcomes[1][1], OperationTimeoutError)
    assert isinstance(outcomes[1][1].__cause__, ValueError)
    assert outcomes[2] == (True, 2, 1)


def test_an_operation_that_ignores_every_cancellation_is_left_behind(run: Any) -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def stubborn() -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        kernel = Kernel(1)
        outcomes = await outcomes_of([call(stubborn, timeout_s=0.02), call(double, 1)], kernel)
        assert isinstance(outcomes[0][1], OperationTimeoutError)
        assert outcomes[1] == (True, 2, 1)
        assert kernel.stats().abandoned_tasks == 1
        release.set()
        await until(lambda: not kernel.stats().abandoned_tasks)

    run(main())


def test_timeouts_count_from_the_start_not_from_the_queue(run: Any) -> None:
    async def nap() -> None:
        await asyncio.sleep(0.03)

    outcomes = run(outcomes_of([call(nap, timeout_s=0.25) for _ in range(20)], Kernel(1)))
    assert all(ok for ok, _, _ in outcomes.values())


def test_a_hanging_sync_operation_is_timed_out_and_its_thread_replaced(run: Any) -> None:
    async def main() -> None:
        release = threading.Event()
        kernel = Kernel(1)
        calls = [call(release.wait, timeout_s=0.05)] + [call(int, str(n)) for n in range(5)]
        outcomes = await outcomes_of(calls, kernel)
        assert isinstance(outcomes[0][1], OperationTimeoutError)
        assert [outcomes[n + 1][1] for n in range(5)] == list(range(5))
        assert kernel.stats().abandoned_threads == 1
        release.set()
        await until(lambda: not kernel.stats().abandoned_threads)
        assert kernel.stats().abandoned_threads_total == 1

    run(main())


def test_one_hanging_sync_operation_among_short_ones_holds_no_other_up(run: Any) -> None:
    async def main() -> None:
        release = threading.Event()
        kernel = Kernel(2)
        done = 0

        def record(index: int, *_: Any) -> None:
            nonlocal done
            done += 1
            if done == 5000:
                release.set()

        short = [call(int, "1") for _ in range(4000)]
        await kernel.run(numbered([*short, call(release.wait), *short[:1000]]), record)
        assert done == 5001
        kernel.close()

    run(main())


def test_no_thread_is_started_while_too_many_hang(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "MAX_ABANDONED", 2)

    async def main() -> None:
        release = threading.Event()
        kernel = Kernel(1)
        outcomes = await outcomes_of([call(release.wait, timeout_s=0.02)] * 5 + [call(double, 1)], kernel)
        assert [type(outcomes[index][1]) for index in range(5)] == [OperationTimeoutError] * 2 + [
            ThreadsExhaustedError
        ] * 3
        assert outcomes[5] == (True, 2, 1)
        release.set()
        await until(lambda: not kernel.stats().abandoned_threads)

    run(main())


@pytest.mark.parametrize("sync", [False, True])
def test_operations_really_overlap_up_to_the_slots_and_never_beyond(run: Any, sync: bool) -> None:
    async def main() -> None:
        gauge = Gauge()
        barrier = threading.Barrier(8)
        arrived = 0
        everyone = asyncio.Event()

        def block() -> None:
            with gauge:
                barrier.wait(5)

        async def suspend() -> None:
            nonlocal arrived
            with gauge:
                arrived += 1
                if arrived % 8 == 0:
                    everyone.set()
                await everyone.wait()

        outcomes = await outcomes_of([call(block if sync else suspend) for _ in range(40)], Kernel(8))
        assert all(ok for ok, _, _ in outcomes.values())
        assert gauge.most == 8

    run(main())


def test_several_runs_share_the_slots_and_each_gets_its_part(run: Any) -> None:
    async def main() -> None:
        kernel = Kernel(6)
        gauge = Gauge()
        enough = asyncio.Event()

        async def operation() -> None:
            with gauge:
                await asyncio.sleep(0.001)

        def sync_operation() -> None:
            with gauge:
                time.sleep(0.001)

        counts = [0, 0, 0]

        def start(which: int, fn: Callable[..., Any]) -> asyncio.Task[None]:
            def record(*_: Any) -> None:
                counts[which] += 1
                if min(counts) > 100:
                    enough.set()

            endless = ((index, fn, (), None, 5.0, 0, 0.0) for index in itertools.count())
            return asyncio.create_task(kernel.run(endless, record))

        tasks = [start(0, operation), start(1, operation), start(2, sync_operation)]
        await enough.wait()
        assert kernel.free_slots == 0
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert gauge.most <= 6
        assert max(counts) < 8 * min(counts)
        assert kernel.free_slots == 6
        kernel.close()

    run(main())


def test_a_late_run_is_served_while_an_endless_one_never_suspends(run: Any) -> None:
    async def main() -> None:
        kernel = Kernel(1)
        endless = ((index, double, (1,), None, 5.0, 0, 0.0) for index in itertools.count())
        task = asyncio.create_task(kernel.run(endless, lambda *_: None))
        for _ in range(20):
            outcomes = Outcomes()
            await kernel.run(numbered([call(double, 4)]), outcomes.record)
            assert outcomes == {0: (True, 8, 1)}
        task.cancel()
        await asyncio.wait([task])
        await kernel.wait_free()

    run(main())


def test_a_failed_operation_is_retried_and_holds_no_slot_meanwhile(run: Any) -> None:
    async def main() -> None:
        tries = 0
        order: list[str] = []

        async def flaky() -> str:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise ValueError(tries)
            order.append("flaky")
            return "third time"

        async def other() -> None:
            order.append("other")

        kernel = Kernel(1)
        outcomes = await outcomes_of([call(flaky, retries=2, delay_s=0.01), call(other)], kernel)
        assert outcomes[0] == (True, "third time", 3)
        assert order == ["other", "flaky"]

    run(main())


def test_sync_operations_are_retried_and_cancellation_is_not(run: Any) -> None:
    tries: list[str] = []

    def fail() -> None:
        tries.append("sync")
        raise ValueError

    async def cancelled() -> None:
        tries.append("cancelled")
        raise asyncio.CancelledError

    outcomes = run(outcomes_of([call(fail, retries=2), call(cancelled, retries=2)]))
    assert sorted(tries) == ["cancelled", "sync", "sync", "sync"]
    assert outcomes[0][2] == 3
    assert outcomes[1][2] == 1


def test_a_run_of_failures_that_wait_for_their_retry_stops_pulling(run: Any) -> None:
    async def main() -> None:
        pulled = 0

        async def fail() -> None:
            raise ValueError

        def endless() -> Iterator[Call]:
            nonlocal pulled
            for pulled in itertools.count():
                yield (pulled, fail, (), None, None, 1, 60.0)

        task = asyncio.create_task(Kernel(2).run(endless(), lambda *_: None))
        await until(lambda: pulled >= 31)
        await asyncio.sleep(0.01)
        assert pulled < 50
        task.cancel()
        await asyncio.wait([task])

    run(main())


def test_cancelling_a_run_cancels_and_awaits_what_runs_and_records_nothing_more(run: Any) -> None:
    async def main() -> None:
        cleaned = 0
        started = asyncio.Event()
        before = asyncio.all_tasks()

        async def operation() -> None:
            nonlocal cleaned
            started.set()
            try:
                await forever()
            finally:
                await asyncio.sleep(0.01)
                cleaned += 1

        kernel = Kernel(5)
        outcomes = Outcomes()
        release = threading.Event()
        endless = itertools.chain(
            [(0, release.wait, (), None, None, 0, 0.0)],
            ((index, operation, (), None, None, 3, 0.0) for index in itertools.count(1)),
        )
        task = asyncio.create_task(kernel.run(endless, outcomes.record))
        await started.wait()
        await until(lambda: kernel.running == 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == 4
        assert outcomes == {}
        assert asyncio.all_tasks() == before
        assert kernel.free_slots == 5
        release.set()
        await until(lambda: not kernel.stats().abandoned_threads)
        assert outcomes == {}

    run(main())


def test_an_error_of_the_iterator_or_of_record_ends_the_run(run: Any) -> None:
    async def main() -> None:
        kernel = Kernel(3)

        def broken() -> Iterator[Call]:
            yield call(forever)
            raise LookupError("iterator")

        with pytest.raises(LookupError, match="iterator"):
            await kernel.run(broken(), lambda *_: None)

        def refuse(*_: Any) -> None:
            raise LookupError("record")

        for fn in (double, int):
            with pytest.raises(LookupError, match="record"):
                await kernel.run(numbered([call(forever), call(fn, 1), call(forever)]), refuse)
        assert kernel.free_slots == 3
        kernel.close()

    run(main())


def test_calls_are_pulled_when_they_can_start_and_the_rest_can_be_given_away(run: Any) -> None:
    async def main() -> None:
        release = asyncio.Event()
        pulled = 0

        async def operation() -> None:
            await release.wait()

        def source() -> Iterator[Call]:
            nonlocal pulled
            while not release.is_set():
                pulled += 1
                yield (pulled, operation, (), None, None, 0, 0.0)

        kernel = Kernel(7)
        outcomes = Outcomes()
        task = asyncio.create_task(kernel.run(source(), outcomes.record))
        await until(lambda: kernel.running == 7)
        assert pulled == 7
        release.set()
        await task
        assert sorted(outcomes) == list(range(1, 8))

    run(main())


def test_context_variables_and_stray_cancellations_stay_in_their_operation(run: Any) -> None:
    async def main() -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
        variable.set("caller")

        async def change() -> str:
            before = variable.get()
            variable.set("operation")
            return before

        def change_sync() -> str:
            before = variable.get()
            variable.set("operation")
            return before

        async def cancel_itself() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return "done"

        calls = [call(change)] * 5 + [call(change_sync)] * 5 + [call(cancel_itself)] * 3 + [call(change)] * 3
        outcomes = await outcomes_of(calls, Kernel(1))
        expected = ["caller"] * 10 + ["done"] * 3 + ["caller"] * 3
        assert [outcomes[index][1] for index in range(len(calls))] == expected

    run(main())


def test_operations_that_never_suspend_do_not_stall_the_loop(run: Any) -> None:
    async def main() -> None:
        async def spin() -> None:
            until = time.perf_counter() + 0.001
            while time.perf_counter() < until:
                pass

        stalls: list[float] = []

        async def watch() -> None:
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0)
                stalls.append(time.perf_counter() - before)

        watcher = asyncio.create_task(watch())
        await outcomes_of([call(spin) for _ in range(300)], Kernel(50))
        watcher.cancel()
        assert len(stalls) > 20
        assert sorted(stalls)[len(stalls) // 2] < 0.02

    run(main())


def test_one_kernel_serves_one_event_loop_after_another() -> None:
    kernel = Kernel(2)
    for new_loop in (*LOOPS.values(), *LOOPS.values()):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            outcomes = Outcomes()
            runner.run(kernel.run(numbered([call(double, 1), call(int, "3")]), outcomes.record))
            assert [outcomes[0][1], outcomes[1][1]] == [2, 3]
    kernel.close()


def test_idle_threads_end_when_the_kernel_is_closed_or_forgotten(run: Any) -> None:
    others = set(threading.enumerate())  # earlier tests leave threads that hang for a while

    def sync_threads() -> list[threading.Thread]:
        new = set(threading.enumerate()) - others
        return [thread for thread in new if thread.name.startswith("fuzzfarm-sync")]

    async def main(close: bool) -> None:
        kernel = Kernel(4)
        await kernel.run(numbered([call(time.sleep, 0.005) for _ in range(8)]), lambda *_: None)
        assert sync_threads()
        if close:
            kernel.close()

    for close in (True, False):
        run(main(close))
        for thread in sync_threads():
            while thread.is_alive():  # not only once: it lets go of its session after the end of the run
                gc.collect()
                thread.join(0.01)
        assert not sync_threads()


def test_a_kernel_needs_a_slot() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Kernel(0)
