"""What limits of a child may be: operations are refused for the same values that a worker could not set."""

from __future__ import annotations

from typing import Final

MIN_PROGRAM_MEMORY_BYTES: Final = 32 * 1024 * 1024
"""Address space: with less, a dynamically linked program does not fit next to the spawner's own stack mapping."""

MIN_CPU_S: Final = 1
MAX_CPU_S: Final = 10**9
"""CPU seconds: 30 years, because Linux counts them in nanoseconds and overflows after 292 years."""

MIN_OPEN_FILES: Final = 8
"""Descriptors: three streams, and a few for the dynamic linker and the program itself."""

MIN_PROCESSES: Final = 1
"""The child itself."""

MAX_LIMIT: Final = 2**62
"""More than any system has of anything, and far enough from the signed 64 bits that limits travel in."""
