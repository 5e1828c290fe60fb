"""Any mix of operations and endings: one outcome for each operation, and nothing left behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzfarm_worker.executors.async_executor import AsyncExecutor
from fuzzfarm_worker.executors.errors import OperationTimeoutError
from fuzzfarm_worker.executors.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzzfarm_shared.futures import AsyncFuture
    from fuzzfarm_worker.executors.calls import Call

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


@dataclass(frozen=True)
class Plan:
    """What one operation does, and what has to become of it."""

    kind: str
    retries: int
    failures: int

    @property
    def expected(self) -> type[BaseException] | None:
        if self.kind in {"hang", "swallow", "hang in thread"}:
            return OperationTimeoutError
        if self.kind == "cancel itself":
            return asyncio.CancelledError
        if self.kind == "exit":
            return SystemExit
        return ValueError if self.failures > self.retries else None

    @property
    def timeout_s(self) -> float:
        """Short only for what hangs: on a busy machine anything else may take a while, too."""
        return 0.03 if self.expected is OperationTimeoutError else 10.0


KINDS = ["return", "suspend", "sleep", "sync", "sync sleep", "lambda", "hang", "swallow", "cancel itself", "exit"]
plans = st.builds(Plan, st.sampled_from(KINDS), st.integers(0, 2), st.sampled_from([0, 0, 0, 1, 3]))
rare = st.builds(Plan, st.just("hang in thread"), st.just(0), st.just(0))
batches = st.tuples(st.lists(plans, max_size=40), st.lists(rare, max_size=2)).flatmap(
    lambda parts: st.permutations(parts[0] + parts[1])
)
profile = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Operation:
    """A planned operation that counts its own calls and how many run at once."""

    running = 0
    most = 0
    lock = threading.Lock()

    def __init__(self, plan: Plan, release: threading.Event) -> None:
        self.plan = plan
        self.tries = 0
        self._release = release

    def fn(self) -> Callable[[], Any]:
        kind = self.plan.kind
        if kind in {"sync", "sync sleep", "hang in thread"}:
            return self._sync
        return partial(self._async) if kind == "lambda" else self._async

    def _enter(self) -> None:
        self.tries += 1
        with Operation.lock:
            Operation.running += 1
            Operation.most = max(Operation.most, Operation.running)

    def _leave(self) -> None:
        with Operation.lock:
            Operation.running -= 1

    def _fail_as_planned(self) -> str:
        if self.tries <= self.plan.failures:
            raise ValueError("planned")
        return "value"

    def _sync(self) -> str:
        if self.plan.kind == "hang in thread":  # beyond the slots once it is left behind
            self._release.wait()
            return "late"
        self._enter()
        try:
            if self.plan.kind == "sync sleep":
                time.sleep(0.001)
            return self._fail_as_planned()
        finally:
            self._leave()

    async def _async(self) -> str:
        self._enter()
        try:
            match self.plan.kind:
                case "suspend" | "lambda":
                    await asyncio.sleep(0)
                case "sleep":
                    await asyncio.sleep(0.002)
                case "hang":
                    await asyncio.Event().wait()
                case "swallow":
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        return "swallowed"
                case "cancel itself":
                    raise asyncio.CancelledError
                case "exit":
                    raise SystemExit
            return self._fail_as_planned()
        finally:
            self._leave()


def run_clean(loop_factory: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], Any]) -> None:
    """Run `main` and hold that it leaves no task behind."""

    async def checked() -> None:
        before = asyncio.all_tasks()
        await asyncio.wait_for(main(), 20)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before | {asyncio.current_task()}

    Operation.running = Operation.most = 0
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(checked())


async def no_threads_left(release: threading.Event, kernel: Kernel) -> None:
    release.set()
    while kernel.stats().abandoned_threads:
        await asyncio.sleep(0.001)
    kernel.close()


def check(plan: Plan, ok: bool, value: Any) -> None:
    if plan.expected is None:
        assert ok, (plan, value)
        assert value == "value"
    else:
        assert not ok, plan
        assert isinstance(value, plan.expected), (plan, value)


@pytest.mark.parametrize("loop_factory", LOOPS)
@profile
@given(batches=st.lists(batches, min_size=1, max_size=3), slots=st.integers(1, 8))
def test_every_operation_of_every_run_gets_one_outcome(loop_factory: Any, batches: Any, slots: int) -> None:
    async def main() -> None:
        kernel, release = Kernel(slots), threading.Event()
        seen: Counter[tuple[int, int]] = Counter()

        def record(run: int, index: int, ok: bool, value: Any, attempt: int, _started: float, _duration: float) -> None:
            seen[run, index] += 1
            check(batches[run][index], ok, value)

        def calls(run: int) -> list[Call]:
            return [
                (index, Operation(plan, release).fn(), (), None, plan.timeout_s, plan.retries, 0.0)
                for index, plan in enumerate(batches[run])
            ]

        runs = [kernel.run(iter(calls(run)), partial(record, run)) for run in range(len(batches))]
        await asyncio.gather(*runs)
        assert seen == Counter((run, index) for run, batch in enumerate(batches) for index in range(len(batch)))
        assert Operation.most <= slots
        assert Operation.running == 0
        assert kernel.free_slots == slots
        assert kernel.running == 0
        await no_threads_left(release, kernel)

    run_clean(loop_factory, main)


@pytest.mark.parametrize("loop_factory", LOOPS)
@profile
@given(batch=batches, slots=st.integers(1, 8), steps=st.integers(0, 30))
def test_a_cancelled_run_records_nothing_twice_and_nothing_later(
    loop_factory: Any, batch: list[Plan], slots: int, steps: int
) -> None:
    async def main() -> None:
        kernel, release = Kernel(slots), threading.Event()
        outcomes: list[int] = []
        calls: list[Call] = [
            (index, Operation(plan, release).fn(), (), None, plan.timeout_s, plan.retries, 0.0)
            for index, plan in enumerate(batch)
        ]
        task = asyncio.create_task(kernel.run(iter(calls), lambda index, *_: outcomes.append(index)))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        recorded = list(outcomes)
        assert len(recorded) == len(set(recorded))
        assert kernel.free_slots == slots
        await no_threads_left(release, kernel)
        assert outcomes == recorded
        assert Operation.running == 0

    run_clean(loop_factory, main)


@pytest.mark.parametrize("loop_factory", LOOPS)
@profile
@given(
    batch=st.lists(plans, max_size=30),
    workers=st.integers(1, 6),
    cancelled=st.sets(st.integers(0, 29)),
    steps=st.integers(0, 10),
)
def test_every_future_is_settled_once_whoever_cancels_it(  # noqa: C901
    loop_factory: Any, batch: list[Plan], workers: int, cancelled: set[int], steps: int
) -> None:
    async def main() -> None:
        settled: Counter[AsyncFuture[Any]] = Counter()
        semaphore = asyncio.Semaphore(2)
        async with AsyncExecutor(workers) as executor:
            futures = []
            for index, plan in enumerate(batch):
                fn = Operation(plan, threading.Event()).fn()
                gate = semaphore if index % 3 == 0 else None
                future = executor.submit(fn, retries=plan.retries, retry_delay=0.0, semaphore=gate)
                future.add_done_callback(lambda future: settled.update([future]))
                futures.append(future)
            for _ in range(steps):
                await asyncio.sleep(0)
            for index, (plan, future) in enumerate(zip(batch, futures, strict=True)):
                if index in cancelled or plan.kind in {"hang", "swallow"}:
                    future.cancel()
            # A cancelled neighbour may have let a hanging one start meanwhile.
            while not all(future.done() for future in futures):
                await asyncio.sleep(0)
                for plan, future in zip(batch, futures, strict=True):
                    if plan.kind in {"hang", "swallow"}:
                        future.cancel()
        assert settled == Counter(futures)
        for index, (plan, future) in enumerate(zip(batch, futures, strict=True)):
            error = future.exception()
            if index not in cancelled and plan.kind not in {"hang", "swallow"}:
                check(plan, error is None, await future if error is None else error)
        assert Operation.most <= workers
        assert Operation.running == 0
        assert not semaphore.locked()
        assert semaphore._value == 2

    run_clean(loop_factory, main)


@pytest.mark.parametrize("loop_factory", LOOPS)
@profile
@given(
    batch=st.lists(plans.filter(lambda plan: plan.expected is None), max_size=40),
    workers=st.integers(1, 6),
    prefetch=st.integers(1, 10),
    leave_after=st.integers(0, 45),
)
def test_map_iter_hands_out_in_order_and_leaving_it_leaves_nothing(
    loop_factory: Any, batch: list[Plan], workers: int, prefetch: int, leave_after: int
) -> None:
    async def main() -> None:
        pulled = 0

        def numbers() -> Any:
            nonlocal pulled
            for pulled in range(1, len(batch) + 1):
                yield pulled - 1

        async def operation(index: int) -> int:
            await asyncio.sleep(0.001 if batch[index].kind == "sleep" else 0)
            return index

        received: list[int] = []
        async with AsyncExecutor(workers) as executor:
            results = executor.map_iter(operation, numbers(), prefetch=prefetch)
            async for result in results:
                assert pulled <= len(received) + prefetch
                received.append(result)
                if len(received) == leave_after:
                    break
            del results
        assert received == list(range(len(received)))
        assert len(received) == (min(leave_after, len(batch)) if leave_after else len(batch))

    run_clean(loop_factory, main)
