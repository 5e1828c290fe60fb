"""A module that takes seconds to import, as large ones do."""

import time

time.sleep(3)


def fuzz_nothing(number: int) -> None:
    """Find nothing."""
