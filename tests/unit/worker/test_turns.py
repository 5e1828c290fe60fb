import pytest

from fuzzfarm_shared.outcomes import FuzzResult
from fuzzfarm_shared.store import Crowd
from fuzzfarm_worker.chunks.turns import LONGEST_TURN_S, SHORTEST_TURN_S, Circumstances, Turn


def around(
    waiting: int = 0,
    *,
    slots: int = 2,
    change_s: float = 0.0,
    age_s: float = 0.0,
    left_s: float | None = None,
) -> Circumstances:
    return Circumstances(Crowd(waiting, waiting > 0, slots), slots, change_s, age_s, left_s)


def test_a_turn_lasts_a_second_and_longer_where_changing_children_takes_long() -> None:
    assert around(5).turn_s == 1.0
    assert around(5, change_s=0.5).turn_s == 2.0
    assert around(5, change_s=100).turn_s == LONGEST_TURN_S


def test_turns_grow_with_the_age_of_the_operation() -> None:
    assert around(5, age_s=500).turn_s == 5.0
    assert around(5, age_s=1e6).turn_s == LONGEST_TURN_S


def test_turns_are_short_enough_for_all_who_wait_to_have_one_before_the_time_is_over() -> None:
    assert around(98, left_s=10).turn_s == pytest.approx(0.2)
    assert around(18, left_s=6).turn_s == pytest.approx(0.6)
    assert around(18, left_s=12, change_s=0.4).turn_s == pytest.approx(0.8)
    assert around(10_000, left_s=10).turn_s == SHORTEST_TURN_S
    assert around(0, left_s=0.1).turn_s == SHORTEST_TURN_S
    assert around(3, left_s=1000).turn_s == 1.0


@pytest.mark.parametrize(
    ("waiting", "slots", "examples", "parts"),
    [(0, 8, 10**6, 8), (3, 8, 10**6, 2), (7, 8, 10**6, 1), (100, 8, 10**6, 1), (0, 8, 1000, 4), (0, 8, 10, 1)],
)
def test_a_new_operation_is_cut_so_that_no_worker_is_left_without(
    waiting: int, slots: int, examples: int, parts: int
) -> None:
    assert around(waiting, slots=slots).parts(examples) == parts


def result(examples: int, duration_s: float) -> FuzzResult:
    return FuzzResult(examples, examples, 0, duration_s, 0.0, 0)


def test_what_takes_long_is_judged_by_what_ran() -> None:
    turn = Turn()
    turn.note(result(10, 1.0))
    assert turn.takes_long(51, None)
    assert not turn.takes_long(50, None)
    assert not turn.takes_long(1, None)
    assert turn.takes_long(2**50, 5.1)
    assert not turn.takes_long(2**50, 4.9)
