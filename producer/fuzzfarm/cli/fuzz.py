"""Commands that fuzz: fuzz and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fuzzfarm.cli import campaign
from fuzzfarm.cli.behind_dashes import words_behind_dashes
from fuzzfarm.cli.campaign import Plan
from fuzzfarm.cli.example_database import add_findings
from fuzzfarm.cli.failures import ExitCode, UsageError
from fuzzfarm.cli.harvest import Ending
from fuzzfarm.cli.input_options import chosen_inputs
from fuzzfarm.cli.limit_options import Cpu, FileSize, Memory, OpenFiles, Processes, chosen_limits
from fuzzfarm.cli.options import Deadline, Json, NewBatchKey, PriorityOption, Redis, Workers, run
from fuzzfarm.cli.output import Output
from fuzzfarm.cli.views import count
from fuzzfarm_shared.operations import MAX_TIMEOUT_S
from fuzzfarm_shared.schedule import Priority, Schedule

DEMO_MODULES = ("fuzzfarm.demo_targets", "fuzzfarm.demo_tests")
DEMO_EXAMPLES = 300
"""Finds nearly all of the planted bugs, in some seconds on two cores."""

Targets = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TARGET...] [-- COMMAND...]", show_default=False,
                   help="module:function, a module, a .py file or a folder; or a command, whose @@ is an input file."),
]  # fmt: skip
Examples = Annotated[
    int | None,
    typer.Option("--examples", "-n", metavar="N", help="Examples for each target (1,000).", show_default=False),
]
TimeBudget = Annotated[
    float | None,
    typer.Option("--time", "-t", metavar="SECONDS", show_default=False,
                 help="Seconds for the whole run, instead of --examples; targets get equal shares."),
]  # fmt: skip
Forever = Annotated[bool, typer.Option("--forever", help="Run until Ctrl-C; targets get equal shares.")]
Runs = Annotated[
    int, typer.Option("--runs", min=1, metavar="N", help="Fuzz each target N times, each time with the next seed.")
]
UntilFinding = Annotated[bool, typer.Option("--until-finding", help="End with the first new finding.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Another seed gives other examples.")]
Strategy = Annotated[
    str | None,
    typer.Option("--strategy", metavar="MODULE:NAME", help="Hypothesis strategy that makes the inputs.",
                 show_default=False),
]  # fmt: skip
InputsOption = Annotated[
    str | None,
    typer.Option("--inputs", metavar="WORD", show_default=False,
                 help="What is generated: bytes, text, regex:PATTERN, seeds:FOLDER or schema:JSON."),
]  # fmt: skip
Schema = Annotated[
    Path | None,
    typer.Option("--schema", metavar="FILE", help="JSON Schema of what is generated.", show_default=False),
]
Seeds = Annotated[
    str | None,
    typer.Option("--seeds", metavar="FOLDER", help="Files that are mutated, in a folder on the workers.",
                 show_default=False),
]  # fmt: skip
CrashExitCodes = Annotated[
    list[int] | None,
    typer.Option("--crash-exit-code", metavar="N", show_default=False,
                 help="Exit code of the command that is a finding; may be given more than once."),
]  # fmt: skip
ExampleTimeout = Annotated[
    float, typer.Option("--example-timeout", metavar="SECONDS", help="An example that takes longer is a finding.")
]
Stateless = Annotated[
    bool, typer.Option("--stateless", help="Run each example in a fork of its own, free of what others left behind.")
]
Isolation = Annotated[
    Literal["child", "none"],
    typer.Option("--isolation", metavar="WORD", help="child, or none: in the worker itself, for code that you trust."),
]
NoNetwork = Annotated[
    bool, typer.Option("--no-network", help="Leave the target no network but a loopback of its own (Linux).")
]


def fuzz(
    context: typer.Context,
    targets: Targets = None,
    examples: Examples = None,
    time_s: TimeBudget = None,
    forever: Forever = False,
    runs: Runs = 1,
    until_finding: UntilFinding = False,
    seed: Seed = 0,
    strategy: Strategy = None,
    inputs: InputsOption = None,
    schema: Schema = None,
    seeds: Seeds = None,
    crash_exit_codes: CrashExitCodes = None,
    example_timeout_s: ExampleTimeout = 1.0,
    memory: Memory = None,
    cpu_s: Cpu = None,
    file_size: FileSize = None,
    open_files: OpenFiles = None,
    processes: Processes = None,
    no_network: NoNetwork = False,
    stateless: Stateless = False,
    isolation: Isolation = "child",
    workers: Workers = None,
    key: NewBatchKey = None,
    priority: PriorityOption = Priority.NORMAL,
    deadline_s: Deadline = None,
    redis: Redis = None,
    as_json: Json = False,
) -> None:
    """Fuzz Hypothesis tests, typed functions or a command.

    Behind -- stands a command, which gets each input as the file @@ or as its standard input.

    Without a farm it starts one with a worker per core, and stops all of it at the end. Findings are saved in
    .fuzzfarm/findings, from where `fuzzfarm replay` runs them again.
    """
    options = {
        **budget(examples, time_s, forever=forever, runs=runs),
        "seed": seed,
        "example_timeout_s": example_timeout_s,
        "limits": chosen_limits(
            memory=memory, cpu_s=cpu_s, file_size=file_size, open_files=open_files, processes=processes
        ),
        "network": not no_network,
        "stateless": stateless,
        "isolation": isolation,
        "crash_exit_codes": crash_exit_codes or None,
    }
    command = words_behind_dashes(context)
    if bool(targets) == bool(command):
        raise UsageError("name targets, or write a command behind --, such as `fuzzfarm fuzz -- ./parser @@`")
    plan = Plan(
        names=targets or (),
        command=command,
        options=options,
        strategy=strategy,
        inputs=chosen_inputs(inputs, schema, seeds),
        redis=redis,
        workers=workers,
        key=key,
        schedule=Schedule(priority, deadline_s),
        runs=runs,
        until_finding=until_finding,
    )
    run(_fuzz(plan, Output(as_json)))


def budget(examples: int | None, time_s: float | None, *, forever: bool, runs: int) -> dict[str, Any]:
    """Return the fields of each fuzz operation that say for how long it runs.

    Raises:
        UsageError: when several options say so.
    """
    limits = {"--examples": examples is not None, "--time": time_s is not None, "--forever": forever}
    given = [name for name, is_given in limits.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} both say how long to run: give one of them")
    if time_s is None and not forever:
        return {"examples": examples}
    if runs > 1:
        raise UsageError(f"--runs repeats a number of examples, and {given[0]} gives none: give --examples")
    return {"time_s": MAX_TIMEOUT_S if forever else time_s, "time_from": "batch"}


def demo(workers: Workers = None, seed: Seed = 0, redis: Redis = None, as_json: Json = False) -> None:
    """Fuzz bundled targets with known bugs.

    It takes some seconds, and finding the bugs is success.
    """
    options = {"examples": DEMO_EXAMPLES, "seed": seed}
    run(_demo(Plan(DEMO_MODULES, options, redis=redis, workers=workers), Output(as_json)))


async def _fuzz(plan: Plan, output: Output) -> int:
    ending = await campaign.fuzz(plan, output)
    await add_findings(ending, output)
    return ending.exit_code


async def _demo(plan: Plan, output: Output) -> int:
    ending = await campaign.fuzz(plan, output)
    return _demo_verdict(ending, output)


def _demo_verdict(ending: Ending, output: Output) -> ExitCode:
    if ending.interrupted:
        return ExitCode.INTERRUPTED
    if ending.failed or not ending.findings:
        return ExitCode.FAILURES
    output.say(f"The demo works: it made {count(len(ending.findings), 'finding')} of planted bugs.", "bold green")
    return ExitCode.CLEAN
