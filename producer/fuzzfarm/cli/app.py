"""The program `fuzzfarm`: its commands, and what becomes of their errors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated

import typer
from typer.core import TyperCommand

from fuzzfarm.cli.batches import batches, cancel, results, status, watch
from fuzzfarm.cli.behind_dashes import CommandBehindDashes
from fuzzfarm.cli.doctor import doctor
from fuzzfarm.cli.execute import exec_
from fuzzfarm.cli.failures import ExitCode, debug_traceback, explain, root
from fuzzfarm.cli.findings import findings, forget, replay, show
from fuzzfarm.cli.fuzz import demo, fuzz
from fuzzfarm.cli.hosts import up, worker, workers
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.submit import submit

COMMANDS: tuple[tuple[str, Callable[..., None], tuple[str, ...]], ...] = (
    ("demo", demo, ("fuzzfarm demo",)),
    (
        "fuzz",
        fuzz,
        (
            "fuzzfarm fuzz tests/",
            "fuzzfarm fuzz mymod:parse --examples 100000 --seed 7",
            "fuzzfarm fuzz --seeds corpus/ -- ./parser @@",
        ),
    ),
    ("exec", exec_, ("fuzzfarm exec -j 8 -- strings -n 4 {} ::: /usr/bin/*",)),
    ("submit", submit, ("fuzzfarm submit jobs.jsonl --key nightly --no-wait",)),
    ("up", up, ("fuzzfarm up --workers 4",)),
    ("worker", worker, ("fuzzfarm worker --redis rediss://farm:6379/0 --processes 4 --allow-target mymod",)),
    ("batches", batches, ("fuzzfarm batches --limit 5",)),
    ("status", status, ("fuzzfarm status nightly",)),
    ("watch", watch, ("fuzzfarm watch nightly",)),
    ("results", results, ("fuzzfarm results nightly --json",)),
    ("cancel", cancel, ("fuzzfarm cancel nightly",)),
    ("workers", workers, ("fuzzfarm workers",)),
    ("findings", findings, ("fuzzfarm findings", "fuzzfarm findings nightly --json")),
    ("show", show, ("fuzzfarm show 3f2a", "fuzzfarm show 3f2a --save-database .hypothesis/examples")),
    ("replay", replay, ("fuzzfarm replay 3f2a",)),
    ("forget", forget, ("fuzzfarm forget 3f2a",)),
    ("doctor", doctor, ("fuzzfarm doctor --redis redis://farm:6379/0",)),
)
"""Name, function and examples, in the order of the help."""

PARALLEL = "exec"
"""Everything behind its first word is the command to run, options included."""

TAKES_COMMAND = "fuzz"
"""Its words behind `--` are a command."""

Version = Annotated[bool, typer.Option("--version", help="Print the version and leave.")]


def fuzzfarm(context: typer.Context, show_version: Version = False) -> None:
    """Run fuzz operations and subprocess jobs on as many machines as you have.

    Exit codes: 0 clean, 1 findings or failures, 2 wrong usage, 3 farm unreachable, 130 stopped by Ctrl-C.
    """
    if show_version:
        typer.echo(f"fuzzfarm {version('fuzzfarm')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def make_app() -> typer.Typer:
    """Return the program with all its commands."""
    app = typer.Typer(
        name="fuzzfarm",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(fuzzfarm)
    for name, function, examples in COMMANDS:
        settings = {"allow_interspersed_args": name != PARALLEL}
        kind = CommandBehindDashes if name == TAKES_COMMAND else TyperCommand
        app.command(name, cls=kind, epilog=_epilog(examples), context_settings=settings)(function)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every error is one line on standard error.

    Args:
        arguments: words of the command line; None: those of this process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a finding may hold what this terminal cannot show
    try:
        command = typer.main.get_command(make_app())
        code = command.main(args=arguments, prog_name="fuzzfarm", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except Exception as exc:  # noqa: BLE001 - no traceback reaches the user unasked
        return _complain(exc)
    return code if isinstance(code, int) else ExitCode.CLEAN


def _complain(exc: Exception) -> int:
    if isinstance(root(exc), BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its exit
        return ExitCode.BROKEN_PIPE
    code, sentence = explain(exc)
    trace = debug_traceback(exc)
    if trace is not None:
        sys.stderr.write(trace)
    Output().complain(f"error: {sentence}")
    return code


def _epilog(examples: Sequence[str]) -> str:
    return "\b\nExample:\n" + "\n".join(f"  {example}" for example in examples)
