import pytest

from fuzzfarm.cli.campaign import Plan, make_operations
from fuzzfarm.cli.failures import UsageError
from fuzzfarm.cli.fuzz import budget


def test_the_time_of_a_run_is_that_of_its_batch() -> None:
    assert budget(None, 60.0, forever=False, runs=1) == {"time_s": 60.0, "time_from": "batch"}
    endless = budget(None, None, forever=True, runs=1)
    assert endless["time_s"] > 86_400 * 20
    assert budget(500, None, forever=False, runs=3) == {"examples": 500}


@pytest.mark.parametrize(
    ("examples", "time_s", "forever", "runs", "says"),
    [
        (5, 1.0, False, 1, "--examples and --time both say how long to run"),
        (None, 1.0, True, 1, "--time and --forever both say"),
        (None, 1.0, False, 2, "--runs repeats a number of examples, and --time gives none"),
        (None, None, True, 2, "--forever gives none"),
    ],
)
def test_budgets_that_contradict_each_other_are_refused(
    examples: int | None, time_s: float | None, forever: bool, runs: int, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        budget(examples, time_s, forever=forever, runs=runs)


def test_runs_have_the_seeds_that_follow_one_another() -> None:
    operations = make_operations(Plan(["x"], {"seed": 7, "examples": 5}, runs=3), ["m:a", "m:b"])
    assert [(one.key, one.target, one.seed) for one in operations] == [
        ("m:a seed 7", "m:a", 7),
        ("m:b seed 7", "m:b", 7),
        ("m:a seed 8", "m:a", 8),
        ("m:b seed 8", "m:b", 8),
        ("m:a seed 9", "m:a", 9),
        ("m:b seed 9", "m:b", 9),
    ]
    [one] = make_operations(Plan(["x"], {"seed": 7}), ["m:a"])
    assert (one.key, one.seed) == ("m:a", 7)
