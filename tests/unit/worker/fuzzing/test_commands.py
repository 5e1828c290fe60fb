"""Commands as targets: planted bugs of every kind are found, kept with their input, and made small."""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import planted_bugs
import pytest
from shard_runs import operation as python_operation
from shard_runs import pool, progress_of, run, smallest

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import ErrorKind, Finding, FuzzResult
from fuzzfarm_worker.fuzzing.commands import INPUT_FILE, PREFIX, as_bytes

LETTERS = "regex:[a-z]{0,6}Z?[a-z]{0,6}"


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(planted_bugs.program(tmp_path_factory.mktemp("planted")))


def operation(*command: str, **fields: Any) -> FuzzOperation:
    return FuzzOperation(key="k", command=list(command), **{"inputs": LETTERS, **fields})


def found(*command: str, stop: int = 40, **fields: Any) -> Finding:
    [finding] = run(operation(*command, **fields), 0, stop).findings
    return finding


@pytest.mark.parametrize("how", [[], [INPUT_FILE]], ids=["stdin", "file"])
def test_a_signal_is_a_finding_with_the_exact_input(planted: str, how: list[str]) -> None:
    finding = found(planted, "signal", *how)
    assert (finding.kind, finding.type, finding.signature) == (ErrorKind.KILLED, "SIGSEGV", "SIGSEGV")
    assert (finding.input, finding.example) == (b"Z", "planted('Z')")
    assert finding.target == " ".join(["command:", planted, "signal", *how])
    assert finding.command == (planted, "signal", *how)
    assert finding.message == "the command was ended by SIGSEGV"


def test_an_assertion_is_told_from_other_aborts(planted: str) -> None:
    finding = found(planted, "assert", INPUT_FILE)
    assert (finding.kind, finding.type) == (ErrorKind.KILLED, "SIGABRT")
    assert finding.signature == "SIGABRT < planted.c:bug < place > length"
    assert finding.location.startswith("planted.c:")


def test_a_report_of_a_sanitizer_is_a_finding_told_by_its_frames(planted: str) -> None:
    finding = found(planted, "report", INPUT_FILE)
    assert (finding.kind, finding.type) == (ErrorKind.EXCEPTION, "AddressSanitizer: heap-buffer-overflow")
    assert finding.signature == "AddressSanitizer: heap-buffer-overflow < parse.c:parse < main.c:main"
    assert finding.location == "parse.c:0 in parse"
    assert "#1 0x55556 in parse" in finding.traceback
    assert (finding.input, finding.count > 1) == (b"Z", True)


def test_errors_that_a_sanitizer_finds_are_found(tmp_path: Path) -> None:
    sanitized = planted_bugs.build(tmp_path, "-fsanitize=address")
    if sanitized is None:
        pytest.skip("no compiler with AddressSanitizer")
    finding = found(str(sanitized), "overflow", INPUT_FILE, stop=20, example_timeout_s=20)
    assert finding.signature == (
        "AddressSanitizer: heap-buffer-overflow < planted.c:overflow < planted.c:bug < planted.c:main"
    )


def test_only_listed_exit_codes_are_findings(planted: str) -> None:
    assert run(operation(planted, "exit3"), 0, 40).findings == []
    assert run(operation(planted, "exit1", crash_exit_codes=[3]), 0, 40).findings == []
    finding = found(planted, "exit3", crash_exit_codes=[3, 4])
    assert (finding.kind, finding.type, finding.input) == (ErrorKind.EXCEPTION, "exit code 3", b"Z")
    assert finding.crash_exit_codes == (3, 4)


def test_a_hang_is_a_finding_and_its_command_is_gone(planted: str, tmp_path: Path) -> None:
    script = tmp_path / "hangs"
    script.write_text(f'#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec {planted} hang "$1"\n')
    script.chmod(0o755)
    finding = found(str(script), INPUT_FILE, stop=12, example_timeout_s=0.4)
    assert (finding.kind, finding.type, finding.signature) == (ErrorKind.TIMEOUT, "hang", "hang")
    assert (finding.location, finding.traceback, finding.output) == ("", "", "going to sleep\n")
    assert finding.input is not None
    assert finding.input.count(b"Z") == 1
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 2
    assert not [pid for pid in pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_command_that_ends_well_has_no_findings_and_every_example_is_run(tmp_path: Path) -> None:
    script = tmp_path / "counts"
    script.write_text(f'#!/bin/sh\ncat "$1" >> {tmp_path}/inputs\necho >> {tmp_path}/inputs\n')
    script.chmod(0o755)
    result = run(operation(str(script), INPUT_FILE), 0, 60)
    assert result.findings == []
    inputs = (tmp_path / "inputs").read_text().splitlines()
    assert len(inputs) == result.distinct_examples
    assert len(set(inputs)) == len(inputs)


def test_the_file_of_an_example_may_stand_within_a_word_and_more_than_once(tmp_path: Path) -> None:
    script = tmp_path / "compares"
    script.write_text(
        '#!/bin/sh\n[ "--in=$2" = "$1" ] || exit 7\ncmp "$2" "$3" || exit 8\n[ -s /dev/stdin ] && exit 9\n'
    )
    script.chmod(0o755)
    words = (f"--in={INPUT_FILE}", INPUT_FILE, INPUT_FILE)
    assert run(operation(str(script), *words, crash_exit_codes=[7, 8, 9]), 0, 5).findings == []


def test_bytes_are_what_a_command_gets_unless_another_word_is_given() -> None:
    assert FuzzOperation(command=["cat"]).inputs == "bytes"
    assert FuzzOperation(command=["cat"], strategy="m:s").inputs is None
    assert as_bytes(b"\xff") == b"\xff"
    assert as_bytes("é") == b"\xc3\xa9"
    assert as_bytes({"a": [1, None]}) == b'{"a": [1, null]}'


def test_a_schema_makes_json_documents_for_a_command(tmp_path: Path) -> None:
    script = tmp_path / "reads"
    script.write_text(f"#!{sys.executable}\nimport json, sys\nsys.exit(json.load(sys.stdin)['n'] > 99)\n")
    script.chmod(0o755)
    schema = 'schema:{"properties": {"n": {"type": "integer"}}, "required": ["n"]}'
    finding = smallest(operation(str(script), inputs=schema, crash_exit_codes=[1], example_timeout_s=20), 60)
    assert finding.input == b'{"n": 100}'


def test_a_command_sees_neither_sockets_nor_variables_of_the_farm(tmp_path: Path) -> None:
    script = tmp_path / "looks"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "names = [os.path.realpath(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')]\n"
        "bad = [name for name in os.environ if name.startswith(('FUZZFARM_', 'PYTHON', 'HYPOTHESIS_'))]\n"
        "sys.exit(5 if bad or any('socket' in name for name in names) else 0)\n"
    )
    script.chmod(0o755)
    assert run(operation(str(script), crash_exit_codes=[5, 1], example_timeout_s=20), 0, 3).findings == []


def test_no_files_are_left_behind(planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    stale, foreign = tmp_path / f"{PREFIX}stale", tmp_path / "another"
    for file in (stale, foreign):
        file.write_text("left by a child that was killed")
        os.utime(file, (0, 0))
    run(operation(planted, "signal", INPUT_FILE), 0, 20)
    assert list(tmp_path.glob(f"{PREFIX}*")) == []
    assert foreign.exists()


def test_a_program_that_is_not_there_is_an_error_before_anything_runs() -> None:
    with pytest.raises(TargetError, match="'/no/such/program' is no program that can be started"):
        run(operation("/no/such/program"), 0, 5)


def test_two_commands_have_children_of_their_own(planted: str) -> None:
    async def main() -> list[FuzzResult]:
        async with pool() as children:
            operations = [
                operation(planted, "signal"),
                operation(planted, "exit3", crash_exit_codes=[3]),
                python_operation("fails_above_a_thousand"),
            ]
            told = [await progress_of(children, one, 0, 60) for one in operations]
            return [merge(progress.result for progress in one) for one in told]

    types = [result.findings[0].type for result in asyncio.run(main())]
    assert types == ["SIGSEGV", "exit code 3", "AssertionError"]


def test_a_command_runs_in_a_fork_of_its_child_too(planted: str) -> None:
    finding = found(planted, "signal", stateless=True)
    assert (finding.type, finding.input) == ("SIGSEGV", b"Z")


def test_the_input_of_a_finding_makes_the_command_fail_without_us(planted: str, tmp_path: Path) -> None:
    finding = found(planted, "signal", INPUT_FILE)
    file = tmp_path / "input"
    assert finding.input is not None
    file.write_bytes(finding.input)
    words = [word.replace(INPUT_FILE, str(file)) for word in finding.command]
    assert subprocess.run(words, check=False).returncode == -11
