"""radare2: disassembly and structure of programs, by commands of an allow-list."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fuzzfarm_worker.processes.oneshot import DEFAULT_TIMEOUT_S
from fuzzfarm_worker.tools.errors import ToolInputError
from fuzzfarm_worker.tools.metrics import async_log_execution, async_track_metrics
from fuzzfarm_worker.tools.registry import INPUT, MAX_OUTPUT_BYTES, Tool, register, run_tool

RADARE2 = register(Tool("radare2", install="apt install radare2 (or see https://rada.re)", program="r2"))

MAX_COMMANDS = 100
"""Commands of one run: more is a script, which belongs into several runs."""

READING_COMMANDS = frozenset(
    name
    for group in (
        "aa aaa aaaa af afi afij afl aflj afll afllj afv afb afbj ax axf axfj axl axt axtj axff agC agCj agf agfj",
        "i ia iaj iE iEj iI iIj iM iMj iR iS iSj iSS iSSj ic icj ie iej ih ii iij ij il ilj im ir irj is isj",
        "iz izj izz",
        "p8 pc pd pda pdc pdf pdfj pdj pdr pdrj pds pdsf pi pif pij ps psz px pxa pxj pxq pxw s f fj fs",
    )
    for name in group.split()
)
"""Commands that read and analyse. None writes, runs a program, opens a file, evaluates settings or takes a script."""

_WORD = r"[A-Za-z0-9_.+-]+"
_COMMAND = re.compile(rf"(?P<name>[A-Za-z0-9]+)(?: +{_WORD})*(?: *@ *{_WORD})?")
"""A name, words, and an address to work at; nothing that radare2 gives a meaning of its own has a place in it."""


@dataclass(frozen=True, slots=True)
class Radare2Result:
    """What radare2 printed.

    Attributes:
        text: the output of all commands, in their order.
        truncated: there were more than `max_output_size` bytes of it.
        duration_s: seconds that it took.
    """

    text: str
    truncated: bool
    duration_s: float


@async_log_execution(tool_name="radare2")
@async_track_metrics("radare2")
async def run_radare2_async(
    file_path: str | os.PathLike[str],
    commands: str | Sequence[str],
    max_output_size: int = MAX_OUTPUT_BYTES,
    timeout: float | None = DEFAULT_TIMEOUT_S,
) -> Radare2Result:
    """Run radare2 commands on a file and return what they print.

    Args:
        file_path: the file, inside of the allowed folders.
        commands: such as "aaa; pdf @ main", or a list of single ones; only those of `READING_COMMANDS`.
        max_output_size: most bytes that are kept.
        timeout: seconds for all of them.

    Raises:
        ToolInputError: for a command that is not allowed; nothing was run.

    Raises and is cancelled as `run_tool` otherwise.
    """
    checked = checked_commands(commands)
    output = await run_tool(
        RADARE2, command_line(checked), file_path=file_path, max_output_size=max_output_size, timeout=timeout
    )
    return Radare2Result(output.text, output.truncated, output.duration_s)


def command_line(commands: Sequence[str]) -> list[str]:
    """Return the arguments that run checked commands: without the user's settings and plugins, and sandboxed.

    The sandbox of radare2 is switched on by the first command, since it would refuse the file itself.
    """
    settings = ["-e", "scr.color=0", "-e", "scr.interactive=false"]
    return ["-q", "-N", "-2", *settings, "-c", ";".join(["e cfg.sandbox=true", *commands]), INPUT]


def checked_commands(commands: str | Sequence[str]) -> list[str]:
    """Return single commands, every one of them allowed.

    Raises:
        ToolInputError: naming the first that is not, and what of it.
    """
    parts = commands.split(";") if isinstance(commands, str) else list(commands)
    single = [part.strip(" ") for part in parts]
    if not any(single) or len(single) > MAX_COMMANDS:
        raise ToolInputError(f"radare2 takes 1 to {MAX_COMMANDS} commands, such as 'aaa; pdf @ main'")
    for command in single:
        _check(command)
    return single


def _check(command: str) -> None:
    match = _COMMAND.fullmatch(command)
    if match is None:
        refused = next((sign for sign in command if not re.fullmatch(r"[A-Za-z0-9_.+@ -]", sign)), "")
        what = (
            f"{refused!r} has a meaning of its own in radare2" if refused else "it is no command with words and one @"
        )
        raise ToolInputError(f"radare2 command {command!r} is refused: {what}")
    if match["name"] not in READING_COMMANDS:
        raise ToolInputError(
            f"radare2 command {command!r} is refused: {match['name']!r} is none of the commands that only read, "
            "such as aaa, afl, pdf, px and iz"
        )
