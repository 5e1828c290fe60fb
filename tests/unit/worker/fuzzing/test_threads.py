"""Targets in threads of the worker; these tests are the worker."""

import asyncio
import gc
import os
import random
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import thread_subjects
from shard_runs import operation, pool, progress_of, run

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding, FuzzResult
from fuzzfarm_worker.fuzzing import FuzzChildren, interpreter
from fuzzfarm_worker.fuzzing.nursery import Nursery
from fuzzfarm_worker.fuzzing.recordings import LOCK, Recordings
from fuzzfarm_worker.fuzzing.threads import MOST_HANGING
from fuzzfarm_worker.processes import ProcessManager

END_S = 20.0


@pytest.fixture(scope="module", autouse=True)
def _first_child() -> None:
    """Start a child, because the first one opens what the process keeps."""
    run(operation("passes"), 0, 1)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """After each test, and after what still waits in it was released, no thread and no descriptor is left."""
    before = descriptors()
    thread_subjects.RELEASE.clear()
    thread_subjects.RUNNING.clear()
    yield
    thread_subjects.RELEASE.set()
    for thread in threads():
        thread.join(END_S)
    assert threads() == []
    gc.collect()  # what a thread that was given up holds goes with it
    assert descriptors() <= before


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fuzzing ")]


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def in_thread(target: str, **fields: Any) -> FuzzOperation:
    return operation(target if ":" in target else f"thread_subjects:{target}", isolation="none", **fields)


def in_child(fuzz: FuzzOperation) -> FuzzOperation:
    return fuzz.model_copy(update={"isolation": "child"})


def core(findings: list[Finding]) -> list[Any]:
    return [(f.id, f.signature, f.kind, f.type, f.example, f.index, f.choices, f.count) for f in findings]


async def result_of(children: FuzzChildren, fuzz: FuzzOperation, stop: int = 300) -> FuzzResult:
    return merge(progress.result for progress in await progress_of(children, fuzz, 0, stop))


def test_an_address_is_the_same_example_in_a_thread_and_in_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail where constants of modules are not left out (`pin_constants`)."""
    fuzz = in_thread("writes_down", seed=3)
    seen = []
    for one in (fuzz, in_child(fuzz)):
        monkeypatch.setenv("HYPOTHESIS_SEEN", str(tmp_path / one.isolation))
        result = run(one, 100, 400)
        seen.append((tmp_path / one.isolation).read_text())
        assert result.findings == []
    assert seen[0] == seen[1]
    assert seen[0].count("\n") > 250


@pytest.mark.parametrize(
    "target",
    [
        "fuzzing_subjects:fails_above_a_thousand",
        "fuzzing_subjects:recurses",
        "fuzzing_subjects:awaits",
        "fuzzing_subjects:calls_sys_exit",
        "fuzzing_subjects:test_with_everything",
        "fuzzing_subjects:Cases.test_limit",
        "stateful_subjects:TestShelf",
        "thread_subjects:interrupts",
        "thread_subjects:chains",
    ],
)
def test_a_thread_finds_what_a_child_finds(target: str) -> None:
    fuzz = in_thread(target)
    here, there = run(fuzz), run(in_child(fuzz))
    assert core(here.findings) == core(there.findings)
    assert here.findings
    assert (here.distinct_examples, here.invalid_examples) == (there.distinct_examples, there.invalid_examples)


def test_no_child_is_needed_for_examples_in_the_worker() -> None:
    async def main() -> None:
        async with pool(1) as children:
            assert (await result_of(children, in_thread("fuzzing_subjects:fails_above_a_thousand"))).findings
            assert not children._nursery._links
            [thread] = threads()
            assert thread.daemon

    asyncio.run(main())


def test_a_thread_stays_warm_for_the_next_shard_of_its_target() -> None:
    async def main() -> list[int]:
        started = []
        fuzz = in_thread("fuzzing_subjects:passes")
        async with pool(1) as children:
            for one in (fuzz, fuzz, in_child(fuzz), fuzz):
                await progress_of(children, one, 0, 10)
                started.append(children.started)
        return started

    assert asyncio.run(main()) == [1, 1, 2, 3]


def test_a_hang_in_a_thread_is_the_finding_that_it_is_in_a_child_and_the_rest_runs() -> None:
    fuzz = in_thread("waits_sometimes", example_timeout_s=0.5)
    here, there = run(fuzz, 0, 40), run(in_child(fuzz), 0, 40)
    assert here.examples == 40
    assert core(here.findings) == core(there.findings)
    [finding] = here.findings
    assert (finding.kind, finding.type, finding.output) == (ErrorKind.TIMEOUT, "hang", "")
    assert finding.location.endswith("in waits_sometimes")
    assert finding.traceback.startswith("Stack (most recent call first):\n")
    assert len(threads()) == here.children_replaced


def test_a_thread_that_is_given_up_leaves_no_recorder(tmp_path: Path) -> None:
    """Seen to fail where its file goes with its cells, which stay mapped (`TargetThread.close`)."""

    async def main() -> None:
        with Recordings("farm", tmp_path) as recordings:
            async with ProcessManager() as processes:
                nursery = Nursery(processes, recordings=recordings)
                async with FuzzChildren(processes, 1, nursery=nursery) as children:
                    result = await result_of(children, in_thread("waits", example_timeout_s=0.2), 1)
                    assert result.findings[0].type == "hang"
                assert len(threads()) == 1
                [folder] = tmp_path.iterdir()
                assert [path.name for path in folder.iterdir()] == [LOCK]

    asyncio.run(main())


def test_an_example_that_hangs_is_not_run_twice_in_a_shard() -> None:
    """Seen to fail where its fingerprint is left as the child hashed it."""

    async def main() -> tuple[int, int, int]:
        async with pool(1) as children:
            result = await result_of(children, in_thread("waits_on_true", example_timeout_s=0.3))
            return children.started, children._threads.given_up, result.examples

    assert asyncio.run(main()) == (2, 1, 300)


def test_examples_run_in_children_while_many_threads_hang() -> None:
    async def main() -> None:
        fuzz = in_thread("waits_sometimes", example_timeout_s=0.3)
        async with pool(1) as children:
            result = await result_of(children, fuzz, 150)
            assert result.examples == 150
            assert result.children_replaced > MOST_HANGING
            assert children._threads.given_up == len(threads()) == MOST_HANGING
            assert children._threads.exhausted
            thread_subjects.RELEASE.set()
            for thread in threads():
                await asyncio.to_thread(thread.join, END_S)
            assert not children._threads.exhausted

    asyncio.run(main())


def test_the_loop_of_the_worker_goes_on_while_an_example_computes() -> None:
    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        async with pool(1) as children:
            await progress_of(children, in_thread("fuzzing_subjects:passes"), 0, 1)
            ticker = asyncio.create_task(tick())
            result = await result_of(children, in_thread("computes", example_timeout_s=30), 1)
            ticker.cancel()
        assert result.findings == []
        return ticks

    assert asyncio.run(main()) >= 20


def test_loading_a_target_does_not_hold_up_the_loop() -> None:
    async def main() -> list[int]:
        async with pool(1) as children:
            return [p.next_index for p in await progress_of(children, in_thread("slow_import:passes"), 0, 10)]

    indices = asyncio.run(main())
    assert indices[:3] == [0, 0, 0]
    assert indices[-1] == 10


def test_operations_run_in_threads_at_the_same_time_and_find_what_they_find_alone() -> None:
    names = ("fails_above_a_thousand", "awaits", "test_with_everything", "takes_a_dataclass")
    fuzzes = [in_thread(f"fuzzing_subjects:{name}", seed=seed) for name in names for seed in range(2)]

    async def main() -> list[FuzzResult]:
        async with pool(len(fuzzes)) as children:
            return await asyncio.gather(*(result_of(children, fuzz) for fuzz in fuzzes))

    for fuzz, together in zip(fuzzes, asyncio.run(main()), strict=True):
        alone = run(in_child(fuzz))
        assert core(together.findings) == core(alone.findings)
        assert together.distinct_examples == alone.distinct_examples


def test_two_operations_run_side_by_side() -> None:
    async def main() -> list[FuzzResult]:
        fuzz = in_thread("meets_another", example_timeout_s=60)
        async with pool(2) as children:
            return await asyncio.gather(*(result_of(children, fuzz, 3) for _ in range(2)))

    assert [result.findings for result in asyncio.run(main())] == [[], []]


def test_closing_gives_up_an_example_that_does_not_end() -> None:
    async def main() -> None:
        async with pool(1) as children:
            async with aclosing(children.run_shard(in_thread("waits", example_timeout_s=60), 0, 10)) as shard:
                while not thread_subjects.RUNNING.is_set():
                    await anext(shard)
            assert (await result_of(children, in_thread("fuzzing_subjects:passes"))).examples == 300
        assert children._threads.given_up == 1

    asyncio.run(main())
    assert len(threads()) == 1


def test_the_global_random_state_is_left_alone() -> None:
    random.seed(5)
    before = random.getstate()
    assert run(in_thread("fuzzing_subjects:fails_above_a_thousand")).findings
    assert random.getstate() == before


def test_what_a_target_prints_goes_where_the_worker_prints(capfd: pytest.CaptureFixture[str]) -> None:
    [finding] = run(in_thread("fuzzing_subjects:prints_and_fails")).findings
    assert finding.output == ""
    number = finding.example.removeprefix("prints_and_fails(number=").removesuffix(")")
    assert f"before {number}\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no_such_module:f", "cannot import module 'no_such_module'"),
        ("fuzzing_subjects:no_such", "has no 'no_such'"),
        ("fails_on_import:f", "ValueError: not today"),
        ("exits_on_import:f", "SystemExit: 7"),
        ("interrupts_on_import:f", "KeyboardInterrupt"),
        ("fuzzing_subjects:no_hint", "has no type hint"),
        ("fuzzing_subjects:test_of_nothing", "empty strategy"),
    ],
)
def test_a_target_that_cannot_be_fuzzed_says_what_to_do(target: str, says: str) -> None:
    with pytest.raises(TargetError, match=says) as caught:
        run(in_thread(target))
    assert "\n" not in str(caught.value)


def test_what_comes_from_another_module_must_be_listed() -> None:
    async def main() -> None:
        async with pool(1, listed=lambda _name: False) as children:
            with pytest.raises(TargetError, match="comes from 'stateful_subjects': allow it by its exact name"):
                await result_of(children, in_thread("borrowing_subjects:TestShelf"))

    asyncio.run(main())


def test_an_import_without_an_end_is_an_error_and_keeps_no_other_target_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with pool(1) as children:
            await progress_of(children, in_thread("fuzzing_subjects:passes"), 0, 1)
            monkeypatch.setattr(interpreter, "LOAD_TIMEOUT_S", 0.3)
            with pytest.raises(TargetError, match="importing it takes more than 60 s"):
                await result_of(children, in_thread("waits_on_import:passes"))
            monkeypatch.undo()
            assert (await result_of(children, in_thread("fuzzing_subjects:two_values"))).examples == 300

    asyncio.run(main())
