"""YARA: rules that recognise files."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fuzzfarm_shared.log import get_logger
from fuzzfarm_worker.processes.command import StreamName
from fuzzfarm_worker.processes.oneshot import DEFAULT_TIMEOUT_S
from fuzzfarm_worker.processes.run import CommandRun
from fuzzfarm_worker.processes.stream import Splitter
from fuzzfarm_worker.tools import workplace
from fuzzfarm_worker.tools.errors import ToolFailedError, ToolInputError
from fuzzfarm_worker.tools.files import opened_file
from fuzzfarm_worker.tools.metrics import async_log_execution, async_track_metrics
from fuzzfarm_worker.tools.registry import INPUT, MAX_OUTPUT_BYTES, Tool, ToolOutput, register, run_tool

YARA = register(Tool("yara", install="apt install yara"))

MAX_RULES_BYTES = 64 * 1024 * 1024
"""Largest rule file: large public collections have some 10 MB."""

PROGRESS_EVERY_S = 0.25
"""Often enough to look alive."""

_SPACE = rb"(?:\s|/\*.*?\*/|//[^\n]*\n)*"
_INCLUDE = re.compile(rb"\binclude" + _SPACE + rb'"', re.DOTALL)
"""A directive that reads another file: https://yara.readthedocs.io/en/stable/writingrules.html#including-files."""

_RULE = re.compile(r"^(?P<rule>[A-Za-z_]\w*) \[(?P<tags>[^\]]*)\] " + re.escape(INPUT) + "$")
_STRING = re.compile(r"^0x(?P<offset>[0-9a-f]+):(?P<name>\$\w*): ")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class YaraProgress:
    """How far a scan is.

    Attributes:
        running_s: seconds since its start.
        output_bytes: what it has written so far.
        matches: rules that have matched so far.
        done: whether it has ended.
    """

    running_s: float
    output_bytes: int
    matches: int
    done: bool


@dataclass(frozen=True, slots=True)
class YaraMatch:
    """A rule that matched.

    Attributes:
        rule: its name.
        tags: its tags.
        strings: offset and name of each string of it that was found.
    """

    rule: str
    tags: list[str] = field(default_factory=list)
    strings: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class YaraResult:
    """The rules that match a file.

    Attributes:
        matches: in the order of the rules.
        truncated: there was more output than `max_output_size` bytes.
        duration_s: seconds that it took.
    """

    matches: list[YaraMatch]
    truncated: bool
    duration_s: float


ProgressCallback = Callable[[YaraProgress], Awaitable[None] | None]


@async_log_execution(tool_name="yara")
@async_track_metrics("yara")
async def run_yara_with_progress(
    file_path: str | os.PathLike[str],
    rule_file: str | os.PathLike[str],
    progress_callback: ProgressCallback | None = None,
    max_output_size: int = MAX_OUTPUT_BYTES,
    timeout: float | None = DEFAULT_TIMEOUT_S,
) -> YaraResult:
    """Scan a file with the rules of another, and tell how far that is.

    Args:
        file_path: the file, inside of the allowed folders.
        rule_file: the rules, too; they may not include other files.
        progress_callback: called, or awaited, with a `YaraProgress` about four times a second and once at the end; what
            it raises is logged, and the scan goes on.
        max_output_size: most bytes of output that are kept.
        timeout: seconds for the scan.

    Raises and is cancelled as `run_tool`; rules that do not compile are a ToolFailedError with YARA's own words.
    """
    counter = MatchCounter()
    async with _private_rules(rule_file) as rules:
        teller = _Teller(progress_callback, counter)
        telling = asyncio.create_task(teller.run())
        try:
            output = await run_tool(
                YARA,
                ["--no-warnings", "--print-tags", "--print-strings", rules, INPUT],
                file_path=file_path,
                max_output_size=max_output_size,
                timeout=timeout,
                on_start=teller.follow,
                on_output=None if progress_callback is None else counter.take,
            )
        except ToolFailedError as exc:
            raise ToolFailedError(
                exc.tool, exc.exit_code, exc.stderr.replace(rules, os.fspath(rule_file))
            ) from exc.__cause__
        finally:
            telling.cancel()
            await asyncio.wait([telling])
    await teller.tell(YaraProgress(output.duration_s, output.output_bytes, counter.matches, done=True))
    return YaraResult(_matches(output), output.truncated, output.duration_s)


class MatchCounter:
    """Counts the rules that have matched, each line of output when it comes."""

    def __init__(self) -> None:
        self.matches = 0
        self._lines = Splitter("line")

    def take(self, stream: StreamName, data: memoryview) -> None:
        """Take the next bytes of a stream."""
        if stream == "stdout":
            lines = self._lines.feed(data)
            self.matches += sum(1 for line in lines if _RULE.match(line.decode(errors="replace").removesuffix("\n")))


class _Teller:
    """Tells a callback how far a run is."""

    def __init__(self, callback: ProgressCallback | None, counter: MatchCounter) -> None:
        self._callback = callback
        self._counter = counter
        self._run: CommandRun | None = None

    def follow(self, run: CommandRun) -> None:
        self._run = run

    async def run(self) -> None:
        """Tell again and again, until cancelled."""
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            if self._run is not None and self._callback is not None:
                now = self._run.progress(0)
                await self.tell(YaraProgress(now.running_s, now.stdout_bytes, self._counter.matches, done=False))

    async def tell(self, progress: YaraProgress) -> None:
        if self._callback is None:
            return
        try:
            answer = self._callback(progress)
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            log.exception("a progress callback failed; the scan goes on")


@asynccontextmanager
async def _private_rules(rule_file: str | os.PathLike[str]) -> AsyncGenerator[str, None]:
    """Give the path of a copy that only we can change: what was checked is what YARA reads."""
    async with workplace.current() as place:
        with opened_file(rule_file, place) as descriptor, os.fdopen(os.dup(descriptor), "rb") as source:
            rules = source.read(MAX_RULES_BYTES + 1)
    if len(rules) > MAX_RULES_BYTES:
        raise ToolInputError(f"{os.fspath(rule_file)!r} has more than {MAX_RULES_BYTES:,} bytes of rules")
    if _INCLUDE.search(rules):
        raise ToolInputError(
            f"{os.fspath(rule_file)!r} includes other files, which could be any: put all rules into one file"
        )
    with tempfile.NamedTemporaryFile(prefix="fuzzfarm-", suffix=".yar") as copy:
        copy.write(rules)
        copy.flush()
        yield copy.name


def _matches(output: ToolOutput) -> list[YaraMatch]:
    matches: list[YaraMatch] = []
    for line in output.text.splitlines():
        if rule := _RULE.match(line):
            matches.append(YaraMatch(rule["rule"], [tag for tag in rule["tags"].split(",") if tag]))
        elif matches and (string := _STRING.match(line)):
            matches[-1].strings.append((int(string["offset"], 16), string["name"]))
    return matches
