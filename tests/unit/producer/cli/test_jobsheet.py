"""The jobs that a command line of exec stands for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, Iterable
from pathlib import Path
from typing import cast

import pytest

from fuzzfarm.cli.command_template import CommandTemplate
from fuzzfarm.cli.failures import UsageError
from fuzzfarm.cli.jobsheet import MOST_KEY_CHARS, Jobsheet, Keys
from fuzzfarm_shared.operations import SubprocessJob


def sheet(*words: str, arg_file: Path | None = None) -> Jobsheet:
    return Jobsheet(CommandTemplate.parse(words), arg_file, {})


def commands(sheet: Jobsheet) -> dict[str | None, list[str]]:
    jobs = list(cast("Iterable[SubprocessJob]", sheet.operations(lambda _key: None)))
    return {job.key: job.command for job in jobs}


def test_each_input_is_a_job_with_the_input_as_its_key() -> None:
    assert commands(sheet("wc", ":::", "a", "b c")) == {"a": ["wc", "a"], "b c": ["wc", "b c"]}


def test_a_command_without_inputs_is_one_job() -> None:
    assert commands(sheet("ls", "-l")) == {"ls -l": ["ls", "-l"]}


def test_lines_of_a_file_are_inputs_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a\r\n\nb")
    assert list(commands(sheet("wc", arg_file=tmp_path / "list"))) == ["a", "b"]
    assert list(commands(sheet("wc", ":::", "c", arg_file=tmp_path / "list"))) == ["c", "a", "b"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read inputs from .*absent"):
        commands(sheet("wc", arg_file=tmp_path / "absent"))


def test_standard_input_is_read_where_it_is_named_or_nothing_else_fills_a_placeholder() -> None:
    assert sheet("wc", "{}").reads_standard_input
    assert sheet("wc", "{/.}").reads_standard_input
    assert sheet("wc", arg_file=Path("-")).reads_standard_input
    assert not sheet("wc", "{}", ":::", "a").reads_standard_input
    assert not sheet("wc", "{}", arg_file=Path("list")).reads_standard_input
    assert not sheet("wc").reads_standard_input


def test_keys_are_told_in_the_order_of_inputs() -> None:
    keys: list[str] = []
    list(cast("Iterable[SubprocessJob]", sheet("wc", ":::", "b", "a", "b").operations(keys.append)))
    assert keys == ["b", "a", "b#2"]


def test_no_two_inputs_have_the_same_key() -> None:
    keys = Keys()
    given = ["a", "a", "a#2", "a", "", "", "x" * 900, "x" * 901]
    made = [keys.of(each) for each in given]
    assert made[:6] == ["a", "a#2", "a#2#2", "a#3", "''", "''#2"]
    assert made[6:] == ["x" * MOST_KEY_CHARS, "x" * MOST_KEY_CHARS + "#2"]


def test_an_input_that_is_no_text_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"the input 'caf\\xe9' is not in UTF-8"):
        Keys().of(os.fsdecode(b"caf\xe9"))


def test_closed_standard_input_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def first() -> object:
        return await anext(aiter(cast("AsyncIterable[SubprocessJob]", sheet("wc", "{}").operations(lambda _key: None))))

    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="standard input, which is closed"):
        asyncio.run(first())
