"""binwalk: files inside of files, by their signatures."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from fuzzfarm_worker.processes.oneshot import DEFAULT_TIMEOUT_S
from fuzzfarm_worker.tools.metrics import async_log_execution, async_track_metrics
from fuzzfarm_worker.tools.registry import INPUT, MAX_OUTPUT_BYTES, Tool, register, run_tool

BINWALK = register(Tool("binwalk", install="apt install binwalk"))

_ROW = re.compile(r"^(?P<offset>\d+)\s+0x[0-9A-Fa-f]+\s+(?P<what>\S.*)$")
"""A row of its table: decimal offset, the same in hexadecimal, description."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One file that was recognised inside of another.

    Attributes:
        offset: bytes from the beginning.
        description: what it is.
    """

    offset: int
    description: str


@dataclass(frozen=True, slots=True)
class BinwalkResult:
    """What is inside of a file.

    Attributes:
        signatures: in the order of their offsets.
        truncated: there was more output than `max_output_size` bytes.
        duration_s: seconds that it took.
    """

    signatures: list[Signature]
    truncated: bool
    duration_s: float


@async_log_execution(tool_name="binwalk")
@async_track_metrics("binwalk")
async def run_binwalk_async(
    file_path: str | os.PathLike[str],
    max_output_size: int = MAX_OUTPUT_BYTES,
    timeout: float | None = DEFAULT_TIMEOUT_S,
) -> BinwalkResult:
    """Return the signatures that are known inside of a file; nothing is extracted.

    Sizes are in bytes, the time limit in seconds; raises and is cancelled as `run_tool`.
    """
    output = await run_tool(
        BINWALK, ["--signature", INPUT], file_path=file_path, max_output_size=max_output_size, timeout=timeout
    )
    rows = filter(None, map(_ROW.match, output.text.splitlines()))
    signatures = [Signature(int(row["offset"]), row["what"].strip()) for row in rows]
    return BinwalkResult(signatures, output.truncated, output.duration_s)
