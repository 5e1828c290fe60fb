"""The registry of tools, and the one way in which all of them are run.

An own tool is a few lines:

    FILE = register(Tool("file", install="apt install file"))

    @async_log_execution(tool_name="file")
    @async_track_metrics("file")
    async def run_file_async(file_path: str) -> str:
        output = await run_tool(FILE, ["--brief", INPUT], file_path=file_path)
        return output.text.strip()
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from fuzzfarm_worker.environment import child_environment
from fuzzfarm_worker.processes import CommandResult, CommandSpec
from fuzzfarm_worker.processes.oneshot import DEFAULT_TIMEOUT_S
from fuzzfarm_worker.processes.run import CommandRun, OutputCallback
from fuzzfarm_worker.tools import workplace
from fuzzfarm_worker.tools.errors import ToolFailedError
from fuzzfarm_worker.tools.files import opened_file

INPUT = "/dev/stdin"
"""Stands for the file in the arguments of a tool: its standard input is the file as we opened and checked it."""

MAX_OUTPUT_BYTES = 10_000_000
"""Kept of each output stream unless asked for otherwise: the text output of any tool we know of a usual binary."""

STDERR_CHARS = 2_000
"""How much of its error output the error of a failed tool shows."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that analyses files.

    Attributes:
        name: for people, logs and metrics.
        install: how to install it, as a command.
        program: name of the program; that of the tool unless given.
        good_exit_codes: with these it has done its work.
    """

    name: str
    install: str
    program: str = ""
    good_exit_codes: frozenset[int] = frozenset({0})

    @property
    def command(self) -> str:
        """The program to run."""
        return self.program or self.name


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool wrote.

    Attributes:
        text: its standard output, UTF-8 with replacement.
        stderr: its error output, the same way.
        exit_code: one of its good ones.
        truncated: some of the output was not kept.
        output_bytes: bytes of standard output in all, kept or not.
        duration_s: seconds from its start to the end of all that it started.
    """

    text: str
    stderr: str
    exit_code: int
    truncated: bool
    output_bytes: int
    duration_s: float


_tools: dict[str, Tool] = {}


def register(tool: Tool) -> Tool:
    """Enter a tool into the registry and return it.

    Raises:
        ValueError: for a name that another tool has.
    """
    if _tools.setdefault(tool.name, tool) != tool:
        raise ValueError(f"there is a tool {tool.name!r} already: give yours another name")
    return tool


def tools() -> dict[str, Tool]:
    """Return all registered tools by name."""
    return dict(_tools)


async def run_tool(
    tool: Tool,
    arguments: Sequence[str],
    *,
    file_path: str | os.PathLike[str] | None = None,
    max_output_size: int = MAX_OUTPUT_BYTES,
    timeout: float | None = DEFAULT_TIMEOUT_S,
    on_start: Callable[[CommandRun], None] | None = None,
    on_output: OutputCallback | None = None,
) -> ToolOutput:
    """Run a tool to its end.

    Args:
        tool: which.
        arguments: its arguments; `INPUT` stands for the file.
        file_path: the file, inside of the allowed folders; None: the tool gets no file.
        max_output_size: most bytes that are kept of each output stream; the rest is counted.
        timeout: seconds for the whole run; None: no limit.
        on_start: called with the run once the program has started.
        on_output: called with the name of the stream and each piece as it comes; it must copy what it keeps.

    Raises:
        ToolMissingError: when it is not installed, or not allowed here.
        ToolInputError: for a file that may not or cannot be read.
        ToolFailedError: when it ends with another exit code than its good ones.
        TimeoutError: when it took longer; it is dead with all that it started.

    Cancelling kills it with all that it started.
    """
    async with workplace.current() as place:
        program = place.program(tool.name, tool.command, tool.install)
        with ExitStack() as files:
            descriptor = None if file_path is None else files.enter_context(opened_file(file_path, place))
            spec = CommandSpec(
                command=[program, *arguments],
                env=child_environment(),
                stdin=descriptor,
                timeout_s=timeout,
                max_output_bytes=max_output_size,
                grace_s=0.0,
            )
            result = await place.processes.run(spec, on_start=on_start, on_output=on_output)
    if result.timed_out:
        raise TimeoutError(f"{tool.name} took longer than {timeout} s and was killed")
    return _output(tool, result)


def _output(tool: Tool, result: CommandResult) -> ToolOutput:
    if result.exit_code not in tool.good_exit_codes:
        raise ToolFailedError(tool.name, result.exit_code, result.stderr_text[-STDERR_CHARS:])
    return ToolOutput(
        text=result.stdout_text,
        stderr=result.stderr_text,
        exit_code=result.exit_code,
        truncated=result.truncated,
        output_bytes=result.stdout_bytes,
        duration_s=result.duration_s,
    )
