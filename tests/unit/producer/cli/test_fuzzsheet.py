import pytest

from fuzzfarm.cli.fuzzsheet import MOST_SHOWN, fuzz_lines, short_time
from fuzzfarm.fuzz_status import FuzzStatus, OperationStatus
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import FuzzResult


def status(*operations: OperationStatus) -> FuzzStatus:
    return FuzzStatus("b", {one.key: one for one in operations}, merge(one.result for one in operations))


def operation(key: str, examples: int, *, ended: bool = False) -> OperationStatus:
    result = FuzzResult(examples, examples // 2, examples // 4, examples / 1000, 1000.0, 0, children_replaced=2)
    return OperationStatus(key, result, 12.4, ended=ended)


def test_numbers_are_shown_for_each_target_and_for_all() -> None:
    lines = fuzz_lines(status(operation("test_x:test_a", 4_000), operation("test_x:test_b", 8_000)))
    assert lines[0].split()[0] == "TARGET"
    words = [line.split() for line in lines[1:]]
    assert words[0] == ["test_x:test_b", "8,000", "12", "4,000", "25%", "1.0", "ms", "0", "2"]
    assert words[1] == ["test_x:test_a", "4,000", "12", "2,000", "25%", "1.0", "ms", "0", "2"]
    assert words[2] == ["all", "12,000", "25", "6,000", "25%", "1.0", "ms", "0", "4"]


def test_what_has_ended_and_what_does_not_fit_is_only_counted() -> None:
    many = [operation(f"k{n}", n) for n in range(MOST_SHOWN + 3)]
    lines = fuzz_lines(status(*many, operation("over", 9, ended=True)))
    assert len(lines) == 1 + MOST_SHOWN + 1
    assert lines[-1].split("  ")[1] == "all (3 more run, 1 ended)"


def test_a_long_name_keeps_its_end() -> None:
    [_, line, _] = fuzz_lines(status(operation("package." * 20 + "tests:test_that_matters", 1)))
    assert line.startswith("  ...")
    assert ":test_that_matters  " in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 us"), (3.2e-6, "3.2 us"), (4.4e-5, "44 us"), (0.0012, "1.2 ms"), (0.5, "500 ms"), (2.5, "2.5 s")],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert short_time(seconds) == text
