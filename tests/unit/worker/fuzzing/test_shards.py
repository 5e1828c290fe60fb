import asyncio
import os
import select
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
from shard_runs import found_by, operation, pool, progress_of, run, smallest

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import ErrorKind
from fuzzfarm_worker.fuzzing import FuzzChildren
from fuzzfarm_worker.fuzzing.interpreter import Interpreter
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.processes import ProcessManager


def test_a_shard_counts_every_example_once() -> None:
    result = run(operation("passes"), 100, 700)
    assert result.examples == 600
    assert 500 < result.distinct_examples <= 600
    assert result.invalid_examples == 0
    assert result.findings == []
    assert result.duration_s > 0


def test_a_failure_becomes_one_finding_with_the_smallest_of_its_examples() -> None:
    finding = found_by(operation("fails_above_a_thousand"))
    assert finding.kind is ErrorKind.EXCEPTION
    assert finding.type == "AssertionError"
    assert finding.message == "too big"
    assert finding.location.startswith("fuzzing_subjects.py:")
    number = int(finding.example.removeprefix("fails_above_a_thousand(number=").removesuffix(")"))
    assert 1000 < number < 2**15, "there are many larger ones"
    assert finding.choices
    assert finding.count > 10
    assert finding.replay == f"fuzzfarm replay {finding.id}"
    assert "assert number <= 1000" in finding.traceback
    assert "fuzzfarm_worker" not in finding.traceback


@pytest.mark.parametrize(
    ("target", "kind", "type_"),
    [
        ("exits", ErrorKind.KILLED, "exit code 3"),
        ("segfaults", ErrorKind.KILLED, "SIGSEGV"),
        ("kills_itself", ErrorKind.KILLED, "SIGKILL"),
        ("hangs", ErrorKind.TIMEOUT, "hang"),
    ],
)
def test_an_example_that_kills_its_child_is_kept_and_the_rest_runs(target: str, kind: ErrorKind, type_: str) -> None:
    result = run(operation(target, example_timeout_s=0.5 if target == "hangs" else 5), 0, 120)
    [finding] = result.findings
    assert result.examples == 120
    assert (finding.kind, finding.type) == (kind, type_)
    number = int(finding.example.removeprefix(f"{target}(number=").removesuffix(")"))
    assert number % 50 == 7
    assert finding.index is not None
    assert finding.choices


def test_a_crash_and_a_hang_tell_where() -> None:
    for target in ("segfaults", "hangs"):
        [finding] = run(operation(target, example_timeout_s=0.5 if target == "hangs" else 5), 0, 120).findings
        assert finding.location.startswith("fuzzing_subjects.py:")
        assert finding.location.endswith(f"in {target}")
        assert f"in {target}" in finding.traceback


def test_a_finding_keeps_what_its_example_printed() -> None:
    finding = smallest(operation("prints_and_fails"))
    assert finding.example == "prints_and_fails(number=1001)"
    assert finding.output == "before 1001\n"


def test_what_a_crashing_example_printed_is_kept_apart_from_its_stack() -> None:
    [finding] = run(operation("prints_and_segfaults"), 0, 120).findings
    number = int(finding.example.removeprefix("prints_and_segfaults(number=").removesuffix(")"))
    assert finding.output == f"the number is {number}\nto the other stream\n"
    assert finding.traceback.startswith("Fatal Python error: Segmentation fault")


def test_what_a_target_prints_does_not_pile_up() -> None:
    async def main() -> int:
        async with pool(1) as children:
            await progress_of(children, operation("prints_much"), 0, 500)
            [child] = children._idle
            return os.fstat(child._printed).st_size

    assert asyncio.run(main()) < 2_000_000


def test_every_killing_example_is_counted_wherever_the_shards_are_cut() -> None:
    whole = run(operation("exits"), 0, 200)
    halves = merge([run(operation("exits"), 0, 90), run(operation("exits"), 90, 200)])
    assert [f.id for f in whole.findings] == [f.id for f in halves.findings]
    assert whole.findings[0].example == halves.findings[0].example
    # A repeated killer is not run twice in one shard, so halves may count one more.
    assert whole.findings[0].count <= halves.findings[0].count <= whole.findings[0].count + 3


def test_a_killing_example_is_not_run_twice_in_a_shard() -> None:
    async def main() -> tuple[int, int]:
        async with pool(1) as children:
            told = await progress_of(children, operation("exits_on_true"), 0, 200)
            return children.started, merge(p.result for p in told).examples

    assert asyncio.run(main()) == (2, 200)


def test_duplicates_are_dropped_before_the_target_runs() -> None:
    assert run(operation("two_values"), 0, 200).distinct_examples == 2


@pytest.mark.parametrize(
    ("target", "type_", "kind"),
    [
        ("calls_sys_exit", "SystemExit", ErrorKind.EXCEPTION),
        ("recurses", "RecursionError", ErrorKind.EXCEPTION),
        ("awaits", "LookupError", ErrorKind.EXCEPTION),
        ("TestMethods.test_limit", "AssertionError", ErrorKind.EXCEPTION),
        ("Cases.test_limit", "AssertionError", ErrorKind.EXCEPTION),
        ("takes_a_dataclass", "AssertionError", ErrorKind.EXCEPTION),
    ],
)
def test_what_a_target_raises_is_a_finding(target: str, type_: str, kind: ErrorKind) -> None:
    [finding] = run(operation(target)).findings
    assert (finding.type, finding.kind) == (type_, kind)


def test_a_dataclass_is_shown_as_the_call_that_makes_it() -> None:
    finding = smallest(operation("takes_a_dataclass"))
    assert finding.example == "takes_a_dataclass(Point(x=100, y=0), label='0')"


def test_memory_beyond_the_limit_is_a_memory_finding() -> None:
    [finding] = run(operation("takes_all_memory", limits={"memory_bytes": 1_000_000_000})).findings
    assert (finding.kind, finding.type) == (ErrorKind.MEMORY, "MemoryError")


def test_an_unmodified_hypothesis_test_runs_with_all_its_parts() -> None:
    result = run(operation("test_with_everything"))
    assert result.examples == 300
    assert result.invalid_examples > 0
    findings = {finding.type: finding for finding in result.findings}
    # The second example that the test lists has no data object, and is a failure of its own.
    assert findings["AttributeError"].index == 1
    assert findings["AttributeError"].example.startswith("test_with_everything(values=[9, 9")
    assert "# Draw 1 (drawn): " in findings["AssertionError"].example


def test_a_skip_is_an_invalid_example() -> None:
    result = run(operation("Cases.test_skips"))
    assert result.findings == []
    assert 50 < result.invalid_examples < 250


@pytest.mark.parametrize("strategy", ["pairs", "make_pairs"])
def test_a_named_strategy_supplies_all_arguments(strategy: str) -> None:
    fuzz = operation("untyped_pair", strategy=f"fuzzing_subjects:{strategy}")
    [finding] = run(fuzz).findings
    assert finding.example == "untyped_pair(0, 0)"
    assert finding.strategy == fuzz.strategy


def test_a_named_strategy_supplies_the_one_argument() -> None:
    finding = smallest(operation("untyped_one", strategy="fuzzing_subjects:numbers"))
    assert finding.example == "untyped_one(900)"


@pytest.mark.parametrize(
    ("target", "strategy", "says"),
    [
        ("no_such_module:f", None, "cannot import module 'no_such_module'"),
        ("fuzzing_subjects:no_such", None, "has no 'no_such'"),
        ("fails_on_import:f", None, "ValueError: not today"),
        ("exits_on_import:f", None, "exit code 7|SystemExit"),
        ("fuzzing_subjects:not_a_strategy", None, "not a function"),
        ("fuzzing_subjects:no_hint", None, "has no type hint"),
        ("fuzzing_subjects:nothing_required", None, "nothing to generate"),
        ("fuzzing_subjects:test_with_fixture", None, "needs tmp_path"),
        ("stateful_subjects:TestNoRules.runTest", None, "defines no rules"),
        ("stateful_subjects:TestShelf.runTest", "fuzzing_subjects:pairs", "leave strategy and inputs out"),
        ("fuzzing_subjects:test_with_wrong_name", None, "no examples can be generated.*other"),
        ("fuzzing_subjects:test_of_nothing", None, "empty strategy"),
        ("fuzzing_subjects:untyped_one", "fuzzing_subjects:nothing", "is empty"),
        ("fuzzing_subjects:takes_a_protocol", None, "type hints"),
        ("fuzzing_subjects:untyped_one", "fuzzing_subjects:not_a_strategy", "name a Hypothesis strategy"),
        ("fuzzing_subjects:untyped_one", "fuzzing_subjects:missing", "has no 'missing'"),
        ("fuzzing_subjects:test_with_everything", "fuzzing_subjects:pairs", "leave strategy and inputs out"),
    ],
)
def test_a_target_that_cannot_be_fuzzed_says_what_to_do(target: str, strategy: str | None, says: str) -> None:
    with pytest.raises(TargetError, match=says) as caught:
        run(operation(target, strategy=strategy))
    assert "\n" not in str(caught.value)


def test_children_stay_warm_for_the_next_shard_of_their_target() -> None:
    async def main() -> list[int]:
        started = []
        async with pool(1) as children:
            for target in ("passes", "passes", "two_values", "passes"):
                await progress_of(children, operation(target), 0, 10)
                started.append(children.started)
        return started

    assert asyncio.run(main()) == [1, 1, 2, 3]


def test_a_child_that_was_loaded_when_there_was_room_is_warm() -> None:
    """Seen to fail where `before` is awaited before there is room."""

    async def main() -> None:
        said = asyncio.Event()

        async def say() -> None:
            said.set()

        async with pool(1) as children:
            fuzz = operation("passes")
            async with aclosing(children.run_shard(fuzz, 0, 10**9)) as shard:
                await anext(shard)
                loading = asyncio.create_task(children.load(operation("exits"), before=say))
                for _ in range(3):
                    await anext(shard)
                assert not said.is_set()
            await loading
            assert said.is_set()
            assert children.started == 2
            await progress_of(children, operation("exits"), 0, 1)
            assert children.started == 2

    asyncio.run(main())


def test_closing_stops_after_the_current_example_and_keeps_the_child() -> None:
    async def main() -> tuple[int, int]:
        async with pool(1) as children:
            async with aclosing(children.run_shard(operation("passes"), 0, 10**9)) as shard:
                told = [await anext(shard)]
                while not told[-1].next_index:  # a child takes long to start on a busy machine
                    told.append(await anext(shard))
            [(idle, _key)] = children._idle.items()
            at_close = idle.recorder.cells[2]
            [last] = await progress_of(children, operation("passes"), 5, 6)
            assert told[-1].next_index <= at_close
            assert merge(p.result for p in told).examples == told[-1].next_index
            return children.started, last.next_index

    assert asyncio.run(main()) == (1, 6)


def test_closing_kills_a_child_that_does_not_answer() -> None:
    async def main() -> int:
        made: list[Interpreter] = []

        class Watched(Nursery):
            async def child(self, target: Target, restrictions: Restrictions) -> Interpreter:
                made.append(await super().child(target, restrictions))
                return made[-1]

        async with ProcessManager() as processes, FuzzChildren(processes, 1, nursery=Watched(processes)) as children:
            async with aclosing(children.run_shard(operation("hangs_always", example_timeout_s=50), 0, 10)) as shard:
                while not made or made[0].recorder.running != 0:
                    await anext(shard)
            await progress_of(children, operation("passes"), 0, 10)
        return made[0].child.exited.result().returncode

    assert asyncio.run(main()) == -signal.SIGKILL


def test_cancelling_kills_the_running_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    seen = asyncio.Event

    async def main() -> int:
        running = seen()
        async with pool(1) as children:

            async def consume() -> None:
                fuzz = operation("hangs_with_a_pid_file", example_timeout_s=50)
                async for _ in children.run_shard(fuzz, 0, 10):
                    if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
                        running.set()

            task = asyncio.create_task(consume())
            await running.wait()
            pidfd = os.pidfd_open(int((tmp_path / "pid").read_text()))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return pidfd

    pidfd = asyncio.run(main())
    assert select.select([pidfd], [], [], 5)[0], "the child still runs"
    os.close(pidfd)


RUN_FOR_EVER = """
import asyncio, sys
sys.path.insert(0, {folder!r})
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_worker.fuzzing import FuzzChildren
from fuzzfarm_worker.processes import ProcessManager
async def main():
    operation = FuzzOperation(target="fuzzing_subjects:hangs_with_a_pid_file", example_timeout_s=50)
    async with ProcessManager() as processes, FuzzChildren(processes, 1) as children:
        async for _ in children.run_shard(operation, 0, 10):
            print("tick", flush=True)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs the guardian")
def test_a_hanging_child_dies_with_its_worker(tmp_path: Path) -> None:
    async def main() -> int:
        file = tmp_path / "pid"
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RUN_FOR_EVER.format(folder=str(Path(__file__).parent))),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        assert worker.stdout is not None
        while not (file.exists() and file.read_text()):
            assert await worker.stdout.readline(), "the worker ended"
        pidfd = os.pidfd_open(int(file.read_text()))
        worker.kill()
        await worker.wait()
        return pidfd

    pidfd = asyncio.run(main())
    assert select.select([pidfd], [], [], 5)[0], "the child outlived its worker"
    os.close(pidfd)


def test_a_deadline_ends_the_shard_early_with_its_findings() -> None:
    async def main() -> None:
        async with pool(1) as children:
            fuzz = operation("fails_above_a_thousand")
            told = await progress_of(children, fuzz, 0, 10**9, deadline_s=0.5)
            result = merge(p.result for p in told)
            assert 0 < told[-1].next_index < 10**9
            assert result.examples == told[-1].next_index
            assert [f.message for f in result.findings] == ["too big"]

    asyncio.run(main())


def test_progress_is_told_while_a_target_is_imported() -> None:
    async def main() -> list[int]:
        async with pool(1) as children:
            return [p.next_index for p in await progress_of(children, operation("slow_import:passes"), 0, 10)]

    indices = asyncio.run(main())
    assert indices[:3] == [0, 0, 0]
    assert indices[-1] == 10


def test_children_have_their_own_group_and_only_harmless_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZZFARM_SIGNING_KEY", "secret")
    monkeypatch.setenv("SECRET_OF_THE_HOST", "hidden")
    monkeypatch.setenv("HYPOTHESIS_OF_THE_HOST", "passed on")
    assert run(operation("inspects_its_process"), 0, 10).findings == []


def test_shards_of_two_targets_run_side_by_side() -> None:
    async def main() -> list[int]:
        async with pool(2) as children:
            both = await asyncio.gather(
                progress_of(children, operation("passes"), 0, 200),
                progress_of(children, operation("two_values"), 0, 200),
                progress_of(children, operation("passes"), 200, 400),
            )
            return [merge(p.result for p in told).examples for told in both]

    assert asyncio.run(main()) == [200, 200, 200]


def test_a_pool_needs_room_for_a_child() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FuzzChildren(ProcessManager(), 0)


def test_children_do_not_load_the_side_of_the_worker() -> None:
    code = "import sys, fuzzfarm_worker.fuzzing.examples; sys.exit('fuzzfarm_worker.fuzzing.shards' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=50).returncode == 0


def test_children_load_nothing_that_their_zygote_could_have_loaded_once() -> None:
    """Seen to fail where `prepare` leaves examples.py to them: a first example took five times as long."""
    code = """
import socket, sys
from fuzzfarm_worker.fuzzing.child import Child, prepare
from fuzzfarm_worker.fuzzing.frames import BlockingChannel
from fuzzfarm_worker.fuzzing.recorder import Recorder
from fuzzfarm_worker.sandbox.cells import new_cells
subject = prepare({"target": "fuzzing_subjects:fails_above_a_thousand", "strategy": None, "own": []})
loaded = set(sys.modules)
ours, _ = socket.socketpair()
child = Child(BlockingChannel(ours), Recorder(new_cells()[1]), subject, output=None)
for index in range(100):
    child.answer_once({"seed": 0, "index": index, "choices": b"", "cpu_s": None})
print([name for name in set(sys.modules) - loaded if name.startswith("fuzzfarm")])
"""
    folder = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": folder}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_the_manager_forgets_children_that_are_gone() -> None:
    async def main() -> int:
        async with ProcessManager() as processes:
            async with FuzzChildren(processes, 1) as children:
                for target in ("passes", "two_values"):
                    await progress_of(children, operation(target), 0, 10)
            return len(await processes.list_processes())

    assert asyncio.run(main()) == 0
