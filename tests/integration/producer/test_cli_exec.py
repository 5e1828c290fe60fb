"""The command exec as its users have it: pipes, terminals, Ctrl-C; on a farm of its own and on one that goes on."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from children import all_end, watched
from command_line import COMMAND_TIMEOUT_S, CommandLine

SCATTERS = "setsid sh -c 'echo $$ > new && mv new {} && exec sleep 1000' & wait"
"""Leaves its pid in a file when a grandchild runs that is in a session of its own."""


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def on_farm(tmp_path: Path, shared_farm: dict[str, Any]) -> CommandLine:
    """With a farm in its environment, which goes on after it."""
    return CommandLine(tmp_path, FUZZFARM_REDIS_URL=shared_farm["url"], FUZZFARM_NAMESPACE=shared_farm["namespace"])


def test_exec_prints_outputs_in_the_order_of_inputs_and_keys_them(cli):
    ended = cli.run("exec", "-j", "3", "--keep-order", "--", "printf", "<%s>\\n", ":::", "c", "a", "b", "a")
    assert ended.code == 0, ended
    assert ended.out == "<c>\n<a>\n<b>\n<a>\n"
    lines = cli.run("exec", "--json", "--", "sh", "-c", "echo {}; exit {}", ":::", "0", "3").out.splitlines()
    outcomes = {outcome["key"]: outcome["value"] for outcome in map(json.loads, lines)}
    assert {key: (value["stdout"], value["exit_code"]) for key, value in outcomes.items()} == {
        "0": ("0\n", 0),
        "3": ("3\n", 3),
    }


def test_jobs_have_the_limits_that_are_asked_for(cli):
    code = "import resource as r; print(*(r.getrlimit(getattr(r, f'RLIMIT_{k}'))[0] for k in input().split()))"
    limits = ("--memory", "1G", "--cpu", "7", "--file-size", "3K", "--open-files", "32", "--processes", "9000")
    command = ["sh", "-c", f'echo AS CPU FSIZE NOFILE NPROC | {sys.executable} -c "$0"', code]
    ended = cli.run("exec", *limits, "--", *command)
    assert ended.out == "1073741824 7 3072 32 9000\n", ended


def test_a_reader_that_leaves_early_is_no_error(cli):
    with cli.start("exec", "--", "sh", "-c", "sleep {}; echo {}", ":::", *["0.2"] * 20) as process:
        assert process.stdout.readline() == "0.2\n"
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert "error" not in errors
    assert "Traceback" not in errors


def test_exec_tells_which_jobs_failed(cli):
    ended = cli.run("exec", "--timeout", "0.5", "--", "sleep", ":::", "0", "1000", "nonsense")
    assert ended.code == 1
    assert ended.out == ""
    assert re.search(r"^1000: timeout", ended.err, re.MULTILINE)
    assert re.search(r"^nonsense: exit code 1", ended.err, re.MULTILINE)
    assert "2 of 3 jobs failed" in ended.err


def test_each_line_of_output_begins_with_its_key_when_that_is_wanted(cli):
    ended = cli.run("exec", "--tag", "-k", "--", "printf", "{}\\n\\nx", ":::", "a", "b")
    assert ended.out == "a\ta\na\t\na\tx\nb\tb\nb\t\nb\tx\n"


@pytest.mark.parametrize("options", [[], ["-j", "1"]], ids=["unbounded", "bounded"])
def test_lines_of_standard_input_run_as_they_come(on_farm, options):
    with on_farm.start("exec", *options, "--", "echo", "<{}>", stdin=subprocess.PIPE) as process:
        for line in ("one", "two"):
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"<{line}>\n"
        assert process.communicate(timeout=COMMAND_TIMEOUT_S)[0] == ""
    assert process.returncode == 0


def test_no_more_jobs_than_wanted_run_at_once_on_a_farm_that_goes_on(on_farm):
    script = "echo +; echo + >>{log}; sleep 0.2; echo - >>{log}".format(log=on_farm.folder / "log")
    ended = on_farm.run("exec", "-j", "2", "--", "sh", "-c", script, "{}", ":::", *"abcdefg")
    assert (ended.code, ended.out) == (0, "+\n" * 7)
    running = most = 0
    for line in (on_farm.folder / "log").read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert (running, most) == (0, 2)


def test_a_bounded_run_that_was_killed_goes_on_under_its_key(on_farm):
    words = ["exec", "-j", "1", "--key", f"bounded{os.getpid()}", "--", "echo", "{}"]
    with on_farm.start(*words, stdin=subprocess.PIPE) as process:
        for line in "ab":
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{line}\n"
        process.kill()
    ended = on_farm.run(*words, ":::", *"abcd")
    assert (ended.code, ended.out.split()) == (0, list("abcd")), ended


def test_without_a_line_on_standard_input_nothing_runs(on_farm):
    ended = on_farm.run("exec", "--", "echo", "{}")
    assert (ended.code, ended.out, ended.err) == (0, "", "there was no input: nothing was run\n")


def started(folder: Path, process: subprocess.Popen[str]) -> int:
    """Return the pid that `SCATTERS` has left in the file "it"."""
    while not (folder / "it").exists():
        assert process.poll() is None
        time.sleep(0.01)
    return int((folder / "it").read_text())


@pytest.mark.parametrize("waits", [False, True], ids=["all submitted", "waits for input"])
def test_ctrl_c_cancels_on_a_farm_that_goes_on_and_leaves_no_process(on_farm, waits):
    script = f"cd {on_farm.folder}; {SCATTERS}"
    words = ["exec", "--timeout", "0", "--", "sh", "-c", script, *([] if waits else [":::", "it"])]
    with on_farm.start(*words, stdin=subprocess.PIPE) as process:
        if waits:
            process.stdin.write("it\n")
            process.stdin.flush()
        with watched([started(on_farm.folder, process)]) as grandchild:
            process.send_signal(signal.SIGINT)
            assert process.wait(COMMAND_TIMEOUT_S) == 130  # nobody has closed its input
            assert all_end(grandchild)
        assert process.stderr.read().splitlines()[-2:] == [
            "stopping; a second Ctrl-C leaves at once",
            "1 job cancelled",
        ]


def test_a_reader_that_leaves_early_cancels_the_rest_on_a_farm_that_goes_on(on_farm):
    script = f"case {{}} in it) cd {on_farm.folder}; {SCATTERS};; *) echo {{}};; esac"
    with on_farm.start("exec", "--timeout", "0", "--", "sh", "-c", script, stdin=subprocess.PIPE) as process:
        process.stdin.write("it\n")
        process.stdin.flush()
        with watched([started(on_farm.folder, process)]) as grandchild:
            process.stdout.close()
            process.stdin.write("one\n")
            process.stdin.flush()
            errors = process.stderr.read()
            assert all_end(grandchild)
    assert process.returncode == 141
    assert errors == ""


class Terminal:
    """A terminal that a command writes to."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        self.screen = b""

    def read_to(self, pattern: bytes) -> None:
        """Read until `pattern` was written; AssertionError when it is not."""
        while not re.search(pattern, self.screen):
            assert self._read(), self.screen[-1_000:]

    def read_to_the_end(self) -> None:
        """Read until nobody writes any more."""
        os.close(self.theirs)
        while self._read():
            pass
        os.close(self.ours)

    def _read(self) -> bool:
        assert select.select([self.ours], [], [], COMMAND_TIMEOUT_S)[0], self.screen[-1_000:]
        try:
            data = os.read(self.ours, 65_536)
        except OSError:  # how Linux says that nobody has it any more
            return False
        self.screen += data
        return bool(data)


def test_on_a_terminal_running_jobs_are_shown_and_no_output_is_overwritten(on_farm):
    terminal = Terminal()
    script = "echo working; while [ ! -e {} ]; do sleep 0.02; done; printf unended"
    words = ["exec", "--timeout", "0", "--", "sh", "-c", script, ":::", str(on_farm.folder / "go")]
    with on_farm.start(*words, stdout=terminal.theirs, stderr=terminal.theirs) as process:
        try:
            terminal.read_to(rb"\d s  8 B  working")
        finally:
            (on_farm.folder / "go").touch()
        terminal.read_to_the_end()
    assert process.returncode == 0
    assert b"working\r\nunended\r\n" in terminal.screen
