"""Columns of numbers as bytes: the same little-endian layout on every host."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from typing import Any


def pack_column(typecode: str, numbers: Iterable[Any]) -> bytes:
    """Return `numbers` as little-endian items of `typecode` (of the array module)."""
    return _swapped(array(typecode, numbers)).tobytes()


def unpack_column(typecode: str, raw: bytes) -> array[Any]:
    """Return the numbers in `raw`; ValueError or TypeError when it is no such column."""
    numbers: array[Any] = array(typecode)
    numbers.frombytes(raw)
    return _swapped(numbers)


def _swapped(numbers: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
