import asyncio

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from shard_runs import operation, pool, progress_of, run, smallest
from stateful_subjects import Shelf

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import ErrorKind, FuzzResult
from fuzzfarm_worker.fuzzing import subject


@pytest.mark.parametrize("target", ["TestShelf.runTest", "TestShelf", "Shelf", "Shelf.TestCase"])
def test_a_state_machine_is_named_by_its_case_or_by_itself(target: str) -> None:
    result = run(operation(f"stateful_subjects:{target}"), 0, 60)
    assert result.examples == 60
    [finding] = result.findings
    assert (finding.type, finding.message) == ("AssertionError", "it sags")
    assert finding.location.endswith("in Shelf.look")


def test_a_failing_run_is_shrunk_to_the_steps_that_hypothesis_prints() -> None:
    finding = smallest(operation("stateful_subjects:TestShelf"), 60)
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(Shelf, settings=settings(database=None, derandomize=True))
    lines = [line for note in caught.value.__notes__ for line in note.splitlines()]
    printed = [line for line in lines if line.startswith(("state", "books"))]
    assert len(printed) == 6
    assert finding.example.splitlines() == printed


def test_a_broken_invariant_is_a_finding_with_the_steps_that_lead_to_it() -> None:
    [finding] = run(operation("stateful_subjects:TestAccount"), 0, 100).findings
    assert (finding.type, finding.message) == ("AssertionError", "overdrawn")
    steps = finding.example.splitlines()
    assert steps[0] == "state = Account()"
    assert steps[1].startswith("state.open(amount=")
    assert steps[-2:] == ["state.is_not_overdrawn()", "state.teardown()"]
    assert sum("state.pay(" in step for step in steps) == 3


def test_the_settings_of_a_case_hold() -> None:
    sound = subject.load("stateful_subjects:TestSound", None)
    lines: list[str] = []
    sound.generator.report(sound.generator.at(0, 0), sound.call_drawn, lines.append)
    assert [line.partition("(")[0] for line in lines] == ["state = Sound", "state.step", "state.step", "state.teardown"]


def test_steps_that_end_their_interpreter_are_kept_and_the_rest_runs() -> None:
    result = run(operation("stateful_subjects:TestBomb", example_timeout_s=5), 0, 10)
    assert result.examples == 10
    [finding] = result.findings
    assert (finding.kind, finding.type) == (ErrorKind.KILLED, "exit code 5")
    steps = finding.example.splitlines()
    assert steps[0] == "state = Bomb()"
    assert all(step.startswith("state.light(length=") for step in steps[1:-1])
    assert len(steps) > 3
    assert steps[-1].startswith("state.explode(reason='")


def test_steps_that_hang_are_kept() -> None:
    [finding] = run(operation("stateful_subjects:TestSleeper", example_timeout_s=0.5), 0, 2).findings
    assert finding.kind is ErrorKind.TIMEOUT
    assert finding.example.splitlines() == ["state = Sleeper()", "state.sleep()"]


def test_the_choices_of_steps_that_end_their_interpreter_lead_there_again() -> None:
    async def main() -> FuzzResult:
        async with pool(1) as children:
            bomb = operation("stateful_subjects:TestBomb", example_timeout_s=5)
            return merge([told.result for told in await progress_of(children, bomb, 0, 1)])

    [finding] = asyncio.run(main()).findings
    loaded = subject.load("stateful_subjects:TestBomb", None)
    lines: list[str] = []

    class ExplodedError(Exception):
        pass

    def tell(step: str) -> None:
        lines.append(step)
        if "explode" in step:
            raise ExplodedError

    loaded.announce_steps(tell)
    with pytest.raises(ExplodedError):
        loaded.generator.run(loaded.generator.stored(finding.choices), loaded.call_drawn)
    assert lines[-1] == finding.example.splitlines()[-1]


def test_an_address_leads_to_the_same_steps_again() -> None:
    shelf = subject.load("stateful_subjects:TestShelf", None)
    lines: list[list[str]] = [[], []]
    for told in lines:
        shelf.generator.report(shelf.generator.at(5, 3), shelf.call_drawn, told.append)
    assert lines[0] == lines[1]
    assert lines[0][0] == "state = Shelf()"


def test_a_state_machine_belongs_to_the_module_that_defines_it() -> None:
    subject.check_own("stateful_subjects:TestShelf.runTest")
    with pytest.raises(TargetError, match="comes from 'stateful_subjects'"):
        subject.check_own("borrowing_subjects:TestShelf")
