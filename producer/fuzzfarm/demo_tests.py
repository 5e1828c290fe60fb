"""Demo tests: Hypothesis tests, as a package may have them, of small code with known bugs.

    fuzzfarm fuzz fuzzfarm.demo_tests

They run under plain pytest too. `fuzzfarm.demo_targets` has plain typed functions.
"""

# ruff: noqa: S101  # assertions are what these tests are for

from __future__ import annotations

from itertools import groupby

from hypothesis import assume, example, given
from hypothesis import strategies as st


def encode(text: str) -> str:
    """Return text with runs as a character and its count: `aab` is `a2b1`."""
    return "".join(f"{character}{len(list(run))}" for character, run in groupby(text))


def decode(code: str) -> str:
    """Return the text that `encode` was given; counts have one digit here, which is the bug."""
    return "".join(code[at] * int(code[at + 1]) for at in range(0, len(code), 2))


def version_key(version: str) -> list[str]:
    """Return what versions are sorted by; it compares text, which is the bug."""
    return version.split(".")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 20))))
@example([("a", 2), ("b", 1)])
def test_decode_inverts_encode(runs: list[tuple[str, int]]) -> None:
    """Fails for a run of ten or more."""
    text = "".join(character * count for character, count in runs)
    assert decode(encode(text)) == text


@given(st.integers(0, 50), st.integers(0, 50))
def test_versions_sort_by_number(one: int, other: int) -> None:
    """Fails for 2 and 10."""
    assume(one < other)
    assert version_key(f"1.{one}") < version_key(f"1.{other}")


@given(st.text())
def test_upper_is_stable(text: str) -> None:
    """Holds: nothing is found here."""
    assert text.upper().upper() == text.upper()


class TestStack:
    """A test method with interactive draws."""

    @given(st.data())
    def test_depth_never_passes_five(self, data: st.DataObject) -> None:
        """Fails for six pushes."""
        depth = 0
        while data.draw(st.booleans(), label="push"):
            depth += 1
            assert depth <= 5
