"""Seeds: a folder of files of which each example is one, mutated.

The mutations are drawn like any other choice, so an example has its address, and making it smaller takes mutations
away and ends at a seed as it is. They are those that a fuzzer without coverage does best with ("havoc" of M. Zalewski,
american fuzzy lop, technical details): single bits and bytes, integers at limits, blocks moved, and two seeds spliced.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from heapq import nsmallest

from hypothesis import strategies as st

MAX_SEED_BYTES = 65_536
"""Largest file that is taken, and largest example: it travels with its finding."""

MAX_ALL_SEEDS_BYTES = 64_000_000
"""All files together, which every child holds; the smallest are taken."""

MAX_SEEDS = 10_000
MAX_MUTATIONS = 16

MAX_BLOCK_BYTES = 64
MAX_REPEATS = 64

INTERESTING = (0, 1, 16, 32, 64, 100, 127, 128, 255, 256, 512, 1000, 1024, 4096, 32767, 32768, 65535, 2**31 - 1, 2**31,
               2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
"""Sizes, limits and signs: what lengths and counters in a file are compared with."""

WIDTHS = (1, 2, 4, 8)

MUTATIONS = st.lists(st.binary(min_size=7, max_size=12), max_size=MAX_MUTATIONS)
"""Each a few bytes: which mutation, where (two bytes), and what it needs to know. A choice of bytes is drawn four times
as fast as one choice for each of these, and gets smaller as well."""

Mutation = Callable[[list[bytes], bytes, int, bytes], bytes]
"""Takes all seeds, the data, a place in it, and the bytes that tell more."""


def seeds_in(folder: str) -> list[bytes]:
    """Return the contents of the files in a folder and those in it, each once, the smallest first.

    Raises:
        ValueError: when there is none that can be taken.
        OSError: when one cannot be read.
    """
    seeds: set[bytes] = set()
    total = 0
    for size, path in nsmallest(MAX_SEEDS, _files(folder)):
        total += size
        if size > MAX_SEED_BYTES or total > MAX_ALL_SEEDS_BYTES:
            break
        seeds.add(_content(path))
    if not seeds:
        raise ValueError(f"folder {folder!r} has no files of at most {MAX_SEED_BYTES:,} bytes: put some into it")
    return sorted(seeds, key=lambda seed: (len(seed), seed))


def _files(folder: str) -> Iterator[tuple[int, str]]:
    """Yield size and path of each regular file; a link leads nowhere, because it may lead out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry.stat(follow_symlinks=False).st_size, entry.path


def _content(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""  # it was a file a moment ago
        return file.read(MAX_SEED_BYTES)


@st.composite  # whose values are shown as what they are, not as the call that made them
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Draw a seed and what mutations make of it; it shrinks to the first seed without any."""
    data = draw(st.sampled_from(seeds))
    for told in draw(MUTATIONS):
        # Modulo the length, so that a mutation still means something after those before it have gone.
        place = int.from_bytes(told[1:3], "big") % (len(data) + 1)
        mutation = MUTATE[told[0] % len(MUTATE)]
        data = mutation(seeds, data, place, told[3:])[:MAX_SEED_BYTES]
    return data


def _delete(_seeds: list[bytes], data: bytes, place: int, told: bytes) -> bytes:
    return data[:place] + data[place + told[0] % MAX_BLOCK_BYTES + 1 :]


def _flip(_seeds: list[bytes], data: bytes, place: int, told: bytes) -> bytes:
    flipped = bytes(byte ^ 1 << told[0] % 8 for byte in data[place : place + 1])
    return data[:place] + flipped + data[place + 1 :]


def _overwrite(_seeds: list[bytes], data: bytes, place: int, told: bytes) -> bytes:
    return data[:place] + told + data[place + len(told) :]


def _insert(_seeds: list[bytes], data: bytes, place: int, told: bytes) -> bytes:
    return data[:place] + told + data[place:]


def _put_integer(_seeds: list[bytes], data: bytes, place: int, told: bytes) -> bytes:
    width = WIDTHS[told[1] % len(WIDTHS)]
    number = INTERESTING[told[0] % len(INTERESTING)] % (1 << 8 * width)
    return _overwrite(_seeds, data, place, number.to_bytes(width, "big" if told[2] % 2 else "little"))


def _repeat(_seeds: list[bytes], data: bytes, place: int, told: bytes) -> bytes:
    block = data[place : place + told[0] % MAX_BLOCK_BYTES + 1]
    return data[:place] + block * (told[1] % MAX_REPEATS + 1) + data[place:]


def _splice(seeds: list[bytes], data: bytes, place: int, told: bytes) -> bytes:
    other = seeds[int.from_bytes(told[:2], "big") % len(seeds)]
    return data[:place] + other[int.from_bytes(told[2:4], "big") % (len(other) + 1) :]


MUTATE: tuple[Mutation, ...] = (_delete, _flip, _overwrite, _insert, _put_integer, _repeat, _splice)
