"""State machines for the tests of fuzzing."""

import os
import time

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule


class Shelf(RuleBasedStateMachine):
    """Takes books and gives them back; lies about its size once a third one is there."""

    books = Bundle("books")

    def __init__(self) -> None:
        super().__init__()
        self.shelf: list[str] = []

    @rule(target=books, title=st.text("ab", min_size=1))
    def put(self, title: str) -> str:
        self.shelf.append(title)
        return title

    @rule(book=books)
    def look(self, book: str) -> None:
        assert len(self.shelf) < 3, "it sags"


TestShelf = Shelf.TestCase


class Account(RuleBasedStateMachine):
    @initialize(amount=st.integers(0, 10))
    def open(self, amount: int) -> None:
        self.balance = amount

    @rule(amount=st.integers(0, 10))
    def pay(self, amount: int) -> None:
        self.balance -= amount

    @invariant()
    def is_not_overdrawn(self) -> None:
        assert self.balance >= -20, "overdrawn"


class TestAccount(Account.TestCase):
    settings = settings(stateful_step_count=7)


class Bomb(RuleBasedStateMachine):
    """Ends its interpreter after two fuses."""

    def __init__(self) -> None:
        super().__init__()
        self.fuses = 0

    @rule(length=st.integers(1, 9))
    def light(self, length: int) -> None:
        self.fuses += 1

    @precondition(lambda self: self.fuses > 1)
    @rule(reason=st.sampled_from(["heat", "shock"]))
    def explode(self, reason: str) -> None:
        os._exit(5)


TestBomb = Bomb.TestCase


class Sleeper(RuleBasedStateMachine):
    @rule()
    def sleep(self) -> None:
        time.sleep(3600)


TestSleeper = Sleeper.TestCase


class Sound(RuleBasedStateMachine):
    @rule(number=st.booleans())
    def step(self, number: bool) -> None:
        pass


TestSound = settings(Sound.TestCase.settings, stateful_step_count=2)(Sound).TestCase


class NoRules(RuleBasedStateMachine):
    pass


TestNoRules = NoRules.TestCase
