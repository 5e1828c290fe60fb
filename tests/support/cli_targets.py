"""What the tests of the command line fuzz."""


def fuzz_small_numbers(number: int) -> None:
    """Fails for what is above 100."""
    assert number <= 100, "too large"


def fuzz_late_letters(text: str) -> None:
    """Fails for letters behind the ASCII ones."""
    if not text.isascii():
        raise LookupError(text)


def fuzz_nothing_wrong(text: str) -> None:
    """Never fails."""
