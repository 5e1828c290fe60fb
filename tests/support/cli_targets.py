"""What the tests of the command line fuzz."""


def fuzz_small_numbers(number: int) -> None:
    """Fails for what is above 100."""
    assert number <= 100, "too large"


def fuzz_nothing_wrong(text: str) -> None:
    """Never fails."""
