import re

import pytest

from fuzzfarm.cli.command_template import FOREIGN, CommandTemplate
from fuzzfarm.cli.failures import UsageError


def test_the_placeholder_is_replaced_wherever_it_stands():
    template = CommandTemplate.parse(["cp", "{}", "out/{}.bak", ":::", "a", "b"])
    assert template.inputs == ("a", "b")
    assert template.command("a") == ["cp", "a", "out/a.bak"]


def test_without_a_placeholder_the_input_is_appended():
    assert CommandTemplate.parse(["wc", "-l", ":::", "a b"]).command("a b") == ["wc", "-l", "a b"]


def test_without_a_separator_it_is_a_single_command():
    assert CommandTemplate.parse(["ls", "-l"]).inputs is None


def test_a_separator_without_inputs_says_what_is_missing():
    with pytest.raises(UsageError, match="no input after :::"):
        CommandTemplate.parse(["ls", ":::"])


@pytest.mark.parametrize(
    ("placeholder", "path", "name"),
    [
        ("{}", "a/b.tar.gz", "b"),
        ("{.}", "a/b.tar", "b"),
        ("{/}", "b.tar.gz", "b"),
        ("{//}", "a", "."),
        ("{/.}", "b.tar", "b"),
    ],
)
def test_placeholders_stand_for_parts_of_a_path(placeholder, path, name):
    template = CommandTemplate.parse(["tool", f"--in={placeholder}"])
    assert template.command("a/b.tar.gz") == ["tool", f"--in={path}"]
    assert template.command("b") == ["tool", f"--in={name}"]


def test_no_command_is_an_error_that_shows_one():
    with pytest.raises(UsageError, match="there is no command: write one after --"):
        CommandTemplate.parse([":::", "a"])
    with pytest.raises(UsageError, match="there is no command"):
        CommandTemplate.parse([""])


@pytest.mark.parametrize("word", FOREIGN)
def test_separators_that_are_not_known_are_refused_instead_of_passed_on(word):
    with pytest.raises(UsageError, match=f"{re.escape(word)} is not known: write inputs after :::"):
        CommandTemplate.parse(["cat", word, "list"])


def test_a_second_separator_is_refused_because_inputs_are_not_combined():
    with pytest.raises(UsageError, match="there is a second :::"):
        CommandTemplate.parse(["echo", ":::", "a", ":::", "b"])
