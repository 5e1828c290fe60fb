"""Functions that the benchmarked workers import by name."""

from __future__ import annotations

import asyncio
from typing import Any


async def no_op(value: Any = None) -> Any:
    return value


async def long_sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


def spin(loops: int) -> int:
    """Keep a core busy for a while, without help from C."""
    total = 0
    for number in range(loops):
        total += number & 7
    return total
