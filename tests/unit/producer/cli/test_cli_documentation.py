"""Every command and option has help, an example, and its place in docs/cli.md."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from fuzzfarm.cli.app import COMMANDS, make_app

DOCUMENT = Path(__file__).parents[4] / "docs" / "cli.md"
GROUP = typer.main.get_command(make_app())
CONTEXT = typer.Context(GROUP, info_name="fuzzfarm")
NAMES = [name for name, _, _ in COMMANDS]
OPTIONS = [
    (name, option)
    for name in NAMES
    for parameter in GROUP.get_command(CONTEXT, name).params
    for option in parameter.opts
    if option.startswith("--")
]
LONGEST_SUMMARY = 60


def section(name: str) -> str:
    """Return what docs/cli.md says of one command."""
    text = DOCUMENT.read_text()
    return text.partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_begins_with_a_short_sentence(name):
    summary = GROUP.get_command(CONTEXT, name).help.splitlines()[0]
    assert summary.endswith(".")
    assert len(summary) <= LONGEST_SUMMARY


@pytest.mark.parametrize(("name", "_function", "examples"), COMMANDS)
def test_the_help_of_a_command_has_an_example_that_the_document_has_too(name, _function, examples):
    shown = GROUP.get_command(CONTEXT, name).get_help(typer.Context(GROUP.get_command(CONTEXT, name), info_name=name))
    for example in examples:
        assert example.startswith(f"fuzzfarm {name}")
        assert example in shown
        assert example in section(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_and_argument_of_a_command_has_help(name):
    for parameter in GROUP.get_command(CONTEXT, name).params:
        assert parameter.help, parameter.name


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_stands_in_the_document(name, option):
    assert f"`{option}" in section(name) or option in {"--json", "--redis", "--help"}


@pytest.mark.parametrize("name", NAMES)
def test_every_command_takes_json_and_all_but_up_a_server(name):
    options = {option for command, option in OPTIONS if command == name}
    assert "--json" in options
    assert ("--redis" in options) == (name != "up")


def test_the_document_has_no_command_that_does_not_exist():
    headings = [line[4:-1] for line in DOCUMENT.read_text().splitlines() if line.startswith("## `")]
    assert headings == NAMES


def test_importing_fuzzfarm_loads_neither_the_command_line_nor_hypothesis():
    # rich is not among them: structlog, which we log with, imports it where it is installed.
    code = "import sys, fuzzfarm; print(sorted({'typer', 'hypothesis', 'fuzzfarm.cli'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "[]\n"
