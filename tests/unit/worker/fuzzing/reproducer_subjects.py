"""Targets for the tests of reproducers."""

import datetime
import enum
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st


@given(st.integers())
def test_below_a_thousand(number: int) -> None:
    assert number < 1000


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def takes_odd_values(day: datetime.date, price: Decimal, share: float, colour: Colour) -> None:
    assert share == 0 or colour is Colour.RED, "odd"


seen: list[int] = []


def remembers_what_it_saw(number: int) -> None:
    seen.append(number)
    assert len(seen) < 50, "it remembers"
