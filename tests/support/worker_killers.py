"""Targets that kill the worker of the child that they run in, as one does that takes all memory of a container."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

from hypothesis import strategies as st


def kill_worker_of(guardian: int) -> None:
    os.kill(parent_of(guardian), signal.SIGKILL)
    time.sleep(60)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill_with_the_first(most: int, number: int) -> None:
    """Kill the worker from its child, with each of the first so many large numbers, whenever it runs."""
    file = Path(tempfile.gettempdir(), "killing-numbers")
    numbers = file.read_text().split() if file.exists() else []
    if number > 100 and len(numbers) < most and str(number) not in numbers:
        numbers.append(str(number))
        file.write_text("\n".join(numbers))
    if str(number) in numbers:
        kill_worker_of(parent_of(os.getppid()))  # the parent of a child is the zygote, whose parent is the guardian


def kills_once(number: int) -> None:
    kill_with_the_first(1, number)


def kills_twice(number: int) -> None:
    kill_with_the_first(2, number)


def takes(number: int) -> None:
    """Do nothing: a number may kill while it is drawn."""


def drawn(number: int) -> int:
    kill_with_the_first(1, number)
    return number


NUMBERS = st.integers().map(drawn)
