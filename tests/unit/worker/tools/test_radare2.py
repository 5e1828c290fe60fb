"""Which radare2 commands pass."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzzfarm_worker.tools import ToolInputError
from fuzzfarm_worker.tools.radare2 import READING_COMMANDS, checked_commands, command_line


@pytest.mark.parametrize(
    ("given_commands", "single"),
    [
        ("afl", ["afl"]),
        ("aaa; pdf @ main", ["aaa", "pdf @ main"]),
        ("px 64 @ 0x1000;iz", ["px 64 @ 0x1000", "iz"]),
        (["pd 10", "pdf@sym.main"], ["pd 10", "pdf@sym.main"]),
    ],
)
def test_commands_that_only_read_pass(given_commands: str | list[str], single: list[str]) -> None:
    assert checked_commands(given_commands) == single


@pytest.mark.parametrize(
    ("refused", "named"),
    [
        ("pdf @ main ~ > /tmp/x", "'~'"),
        ("pdf > /tmp/x", "'>'"),
        ("pdf | sh", "'|'"),
        ("!ls", "'!'"),
        ("#!pipe ls", "'#'"),
        ("px `ls`", "'`'"),
        ("px $(ls)", "'$'"),
        ("$x=!ls", "'$'"),
        (". script", "no command with words"),
        (".!ls", "'!'"),
        ('"px;!ls"', "'\"'"),
        ("aaa;!ls", "'!'"),
        ("aaa\n!ls", "'\\n'"),
        ("pdf @@ fcn.*", "'*'"),
        ("pdf @@c:!ls", "':'"),
        ("px @@ sym.x", "no command with words"),
        ("px @ a @ b", "no command with words"),
        ("px {x}", "'{'"),
        ("px (x)", "'('"),
        ("px%x", "'%'"),
        ("w abc", "'w'"),
        ("wtf /tmp/x", "'/'"),
        ("o /etc/passwd", "'/'"),
        ("oo+", "no command with words"),
        ("e cfg.sandbox=false", "'='"),
        ("q", "'q'"),
        ("idpd", "'idpd'"),
        ("aaa;", "no command with words"),
        ("px\x00", "'\\x00'"),
        ("pdf\u00a0", "'\\xa0'"),
        ("", "1 to 100 commands"),
        (";;", "1 to 100 commands"),
        ([], "1 to 100 commands"),
        (["px"] * 101, "1 to 100 commands"),
        (["px; !ls"], "';'"),
    ],
)
def test_everything_else_is_refused_and_named(refused: str | list[str], named: str) -> None:
    with pytest.raises(ToolInputError, match=re.escape(named)):
        checked_commands(refused)


@given(
    st.one_of(
        st.text(alphabet=st.sampled_from("pdfxaiz @~>|;!`$.\"'\n#&()[]{}=*?/\\,:0159-+_"), max_size=20),
        st.lists(st.sampled_from([*sorted(READING_COMMANDS)[:8], "@", "main", "~", ">", ";", "!ls", "0x10", " "])).map(
            " ".join
        ),
        st.text(max_size=20),
    )
)
@example("pdf @ main")
def test_whatever_passes_has_none_of_the_signs_of_radare2(commands: str) -> None:
    try:
        single = checked_commands(commands)
    except ToolInputError:
        return
    for command in single:
        assert re.fullmatch(r"[A-Za-z0-9_.+@ -]+", command)
        assert command.count("@") <= 1
        assert command.split()[0].split("@")[0] in READING_COMMANDS


def test_the_sandbox_is_on_before_the_first_command_and_settings_of_the_user_are_not_read() -> None:
    line = command_line(["aaa", "pdf @ main"])
    assert line[line.index("-c") + 1] == "e cfg.sandbox=true;aaa;pdf @ main"
    assert "-N" in line
