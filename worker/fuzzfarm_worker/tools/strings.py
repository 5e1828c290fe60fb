"""strings of GNU binutils: printable text in any file."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fuzzfarm_worker.processes.oneshot import DEFAULT_TIMEOUT_S
from fuzzfarm_worker.tools.errors import ToolInputError
from fuzzfarm_worker.tools.metrics import async_log_execution, async_track_metrics
from fuzzfarm_worker.tools.registry import INPUT, MAX_OUTPUT_BYTES, Tool, register, run_tool

STRINGS = register(Tool("strings", install="apt install binutils"))


@dataclass(frozen=True, slots=True)
class StringsResult:
    """The printable strings of a file.

    Attributes:
        strings: in the order of the file.
        truncated: there were more than `max_output_size` bytes of them.
        output_bytes: bytes of all of them.
        duration_s: seconds that it took.
    """

    strings: list[str]
    truncated: bool
    output_bytes: int
    duration_s: float


@async_log_execution(tool_name="strings")
@async_track_metrics("strings")
async def run_strings_async(
    file_path: str | os.PathLike[str],
    min_length: int = 4,
    max_output_size: int = MAX_OUTPUT_BYTES,
    timeout: float | None = DEFAULT_TIMEOUT_S,
) -> StringsResult:
    """Return the printable strings of at least `min_length` characters in a file.

    Sizes are in bytes, the time limit in seconds; raises and is cancelled as `run_tool`.
    """
    if min_length < 1:
        raise ToolInputError(f"min_length is {min_length} and must be at least 1")
    arguments = ["-n", str(min_length), INPUT]
    output = await run_tool(STRINGS, arguments, file_path=file_path, max_output_size=max_output_size, timeout=timeout)
    return StringsResult(output.text.splitlines(), output.truncated, output.output_bytes, output.duration_s)
