"""How findings read for people: one in some lines, all of one, and many in a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich import box
from rich.console import RenderableType
from rich.panel import Panel
from rich.text import Text

from fuzzfarm.cli.output import Output, table
from fuzzfarm.cli.printable import printable, shortened
from fuzzfarm.cli.views import MESSAGE_CHARS, age, count, size
from fuzzfarm_shared.outcomes import ErrorKind, Finding

EXAMPLE_LINES = 20
EXAMPLE_LINE_CHARS = 200
"""A smallest example is rarely larger; `fuzzfarm show` has all of it."""

TABLE_CHARS = 100
"""Of what failed, in a table."""

SCRIPT = "script, which fails in the same way without fuzzfarm"
DECORATOR = "line above a Hypothesis test, which then runs only this example"
REPLAY = "replay"

_LIMIT_WORDS = {
    "memory_bytes": "{} of memory",
    "cpu_s": "{} s of CPU",
    "file_size_bytes": "files of {}",
    "open_files": "{} descriptors",
    "processes": "{} processes",
}
"""How each limit of a finding reads."""


def finding_title(finding: Finding) -> str:
    """Return what failed, in one line."""
    name = finding.type or finding.kind.value
    marks = [finding.kind.value] if finding.kind is not ErrorKind.EXCEPTION else []
    marks += ["flaky"] if finding.flaky else []
    marked = f" [{', '.join(marks)}]" if marks else ""
    return f"{name.removeprefix('builtins.')}{marked} in {finding.target}"


def finding_line(finding: Finding) -> str:
    """Return what failed and where, in one line of a table."""
    return shortened(finding_title(finding) + (f", {finding.location}" if finding.location else ""), TABLE_CHARS)


def finding_block(finding: Finding, *, saved: bool = True) -> str:
    """Return what is known of a finding in a few lines; `saved`: it can be replayed by its id from here."""
    lines = [f"message   {shortened(finding.message, MESSAGE_CHARS)}"] if finding.message else []
    if finding.location:
        lines.append(f"where     {finding.location}")
    example = _example_lines(finding.example)
    lines += [f"{'example' if place == 0 else '':<10}{line}" for place, line in enumerate(example)]
    address = "" if finding.index is None else f", example {finding.index:,} of seed {finding.seed}"
    lines.append(f"seen      {count(finding.count, 'time')}{address}")
    if finding.replays:
        lines.append(f"fails     {fails_text(finding)} when it runs again")
    if saved:
        lines.append(f"replay    {finding.replay or f'fuzzfarm replay {finding.id}'}")
    return "\n".join(printable(line) for line in lines)


def fails_text(finding: Finding) -> str:
    """Return how often the example failed when it was run again; "-" before it was."""
    return f"{finding.replay_failures} of {finding.replays}" if finding.replays else "-"


def _example_lines(example: str) -> list[str]:
    lines = printable(example).splitlines() or ["(none recorded: the child died before it could tell)"]
    kept = [_shortened_line(line) for line in lines[:EXAMPLE_LINES]]
    return kept if len(lines) <= EXAMPLE_LINES else [*kept, f"... and {len(lines) - EXAMPLE_LINES:,} more lines"]


def _shortened_line(line: str) -> str:
    cut = len(line) - EXAMPLE_LINE_CHARS
    return line if cut <= 0 else f"{line[:EXAMPLE_LINE_CHARS]}... ({cut:,} more characters)"


def show_finding(output: Output, finding: Finding, *, saved: bool = True) -> None:
    """Draw a finding: framed on a terminal, as indented lines without one."""
    title, body = printable(finding_title(finding)), finding_block(finding, saved=saved)
    drawing: RenderableType
    if output.console.is_terminal:
        drawing = Panel(Text(body), title=Text(title, "bold red"), title_align="left", box=box.ROUNDED)
    else:
        drawing = Text("\n".join([title, *(f"  {line}" for line in body.splitlines()), ""]))
    output.draw(drawing)


def finding_table(findings: Sequence[Finding], now: float) -> str:
    """Return one row for each finding."""
    header = ["ID", "SEEN", "LAST SEEN", "FAILS", "FINDING"]
    rows = [
        [
            finding.id,
            f"{finding.count:,}",
            f"{age(finding.last_seen, now)} ago",
            fails_text(finding),
            finding_line(finding),
        ]
        for finding in findings
    ]
    return table(header, rows)


def show_whole(output: Output, finding: Finding, sections: Sequence[tuple[str, str]]) -> None:
    """Write all that is known of a finding, and then `sections`: a heading and a text each."""
    output.say(finding_title(finding), "bold red")
    for name, text in _facts(finding):
        output.say(f"  {name:<10}{text}")
    texts = [("example", finding.example), ("traceback", finding.traceback), ("output", finding.output), *sections]
    for heading, text in texts:
        if text:
            output.say()
            output.say(f"{heading}:", "bold")
            output.say(text.rstrip("\n"))


def _facts(finding: Finding) -> Iterator[tuple[str, str]]:
    yield "id", finding.id
    if finding.message:
        yield "message", finding.message
    if finding.location:
        yield "where", finding.location
    yield (
        "seen",
        f"{count(finding.count, 'time')}, first {_moment(finding.first_seen)}, last {_moment(finding.last_seen)}",
    )
    if finding.hosts:
        yield "hosts", ", ".join(finding.hosts)
    yield "fails", f"{fails_text(finding)} when it runs again" if finding.replays else "was not run again yet"
    if finding.index is not None:
        yield "address", f"example {finding.index:,} of seed {finding.seed}"
    yield "versions", f"Python {finding.python}, Hypothesis {finding.hypothesis}"
    yield "limits", ", ".join(_limits(finding))
    made = finding.strategy or finding.inputs
    if made is not None:
        yield "inputs", shortened(made, MESSAGE_CHARS)
    yield "signature", finding.signature


def _limits(finding: Finding) -> Iterator[str]:
    yield f"{finding.example_timeout_s:g} s for an example"
    for name, words in _LIMIT_WORDS.items():
        if (limit := finding.limits.get(name)) is not None:
            yield words.format(size(limit) if name.endswith("_bytes") else f"{limit:,}")
    if not finding.network:
        yield "no network"


def _moment(time_s: float) -> str:
    return datetime.fromtimestamp(time_s).astimezone().isoformat(" ", "seconds")
