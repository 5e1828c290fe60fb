from dataclasses import replace

import pytest
from sightings import finding

from fuzzfarm_shared.merging import combine, merge
from fuzzfarm_shared.outcomes import MAX_HOSTS, Finding, FuzzResult

FINDING = finding()


def result(examples: int, *findings: Finding) -> FuzzResult:
    return FuzzResult(examples, examples - 1, 1, 2.0, examples / 2.0, 4, list(findings))


def test_numbers_add_up() -> None:
    merged = merge([result(10), result(30)])
    assert (merged.examples, merged.distinct_examples, merged.invalid_examples) == (40, 38, 2)
    assert (merged.duration_s, merged.executions_per_s, merged.seed) == (4.0, 10.0, 4)


def test_a_finding_of_two_shards_is_one_with_its_smallest_example() -> None:
    smaller = replace(FINDING, example="f(1)", choices=b"1", count=3, first_seen=5.0, last_seen=6.0, index=77)
    for order in ([result(1, FINDING), result(1, smaller)], [result(1, smaller), result(1, FINDING)]):
        [merged] = merge(order).findings
        assert (merged.example, merged.choices, merged.index) == ("f(1)", b"1", 77)
        assert (merged.count, merged.first_seen, merged.last_seen) == (5, 5.0, 20.0)


def test_a_generated_example_is_smaller_than_one_that_the_test_lists() -> None:
    listed = replace(FINDING, choices=b"", example="f(5)")
    [merged] = merge([result(1, listed), result(1, FINDING)]).findings
    assert merged.choices == FINDING.choices


def test_other_findings_stay_apart_in_the_order_in_which_they_were_seen() -> None:
    later = replace(FINDING, id="a0", first_seen=11.0)
    assert [f.id for f in merge([result(1, later), result(1, FINDING)]).findings] == ["f1", "a0"]


def test_nothing_merges_to_nothing() -> None:
    assert merge([]) == FuzzResult(0, 0, 0, 0.0, 0.0, 0, [])


def test_hosts_are_named_once_and_up_to_a_limit() -> None:
    one = replace(FINDING, hosts=("pear", "apple"))
    assert combine(one, replace(FINDING, hosts=("apple", "fig"))).hosts == ("pear", "apple", "fig")
    many = replace(FINDING, hosts=tuple(map(str, range(MAX_HOSTS))))
    assert combine(many, one).hosts == many.hosts


@pytest.mark.parametrize("turn", [1, -1])
def test_an_example_that_was_examined_is_kept_and_of_two_the_smaller_one(turn: int) -> None:
    large = replace(FINDING, replays=10, replay_failures=3)
    small = replace(FINDING, choices=b"1")
    merged = combine(*[large, small][::turn])
    assert (merged.choices, merged.replays, merged.replay_failures, merged.flaky) == (large.choices, 10, 3, True)
    confirmed = replace(small, replays=10, replay_failures=10)
    merged = combine(*[large, confirmed][::turn])
    assert (merged.choices, merged.replays, merged.flaky) == (b"1", 10, False)
