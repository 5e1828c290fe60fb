import io

import pytest

from fuzzfarm.cli.failures import UsageError
from fuzzfarm.cli.operation_files import check, operations, spooled
from fuzzfarm_shared.operations import CallOperation, FuzzOperation, SubprocessJob

TOML = """
[[operation]]
kind = "call"
target = "math:sqrt"
args = [4]

[[operation]]
kind = "subprocess"
command = ["echo", "hi"]

[operation.limits]
open_files = 16
"""


def written(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def test_json_lines_of_every_kind_become_operations(tmp_path):
    lines = (
        '{"kind": "call", "key": "a", "target": "m:f", "kwargs": {"x": 1}}\n\n'
        '{"kind": "subprocess", "command": ["cat"], "stdin": "text"}\n'
        '{"kind": "fuzz", "target": "m:f", "time_s": 2}\n'
    )
    call, job, fuzz = operations(written(tmp_path, "ops.jsonl", lines))
    assert call == CallOperation(key="a", target="m:f", kwargs={"x": 1})
    assert job == SubprocessJob(command=["cat"], stdin=b"text")
    assert fuzz == FuzzOperation(target="m:f", time_s=2)


def test_toml_tables_become_operations(tmp_path):
    call, job = operations(written(tmp_path, "ops.toml", TOML))
    assert call == CallOperation(target="math:sqrt", args=[4])
    assert job.limits.open_files == 16


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"kind": "call", "target": "m:f"}\n{nonsense\n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", '{"target": "m:f"}', r"a\.jsonl:1: kind is None: write one of call, subprocess, fuzz"),
        ("a.jsonl", '{"kind": "cal"}', r"a\.jsonl:1: kind is 'cal'"),
        ("a.jsonl", '{"kind": ["call"]}', r"a\.jsonl:1: kind is \['call'\]"),
        ("a.jsonl", "[1]", r"a\.jsonl:1: an operation is an object"),
        ("a.jsonl", '{"kind": "call", "target": "m:f", "arg": 1}', r"a\.jsonl:1: CallOperation has no field 'arg'"),
        ("a.jsonl", '{"kind": "call", "target": "nocolon"}', r"a\.jsonl:1: .*nocolon"),
        ("a.jsonl", '{"kind": "fuzz", "target": "m:f", "examples": 1, "time_s": 1}', "examples or time_s, not both"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl:1: not JSON"),
        ("a.jsonl", "\n", "holds no operations"),
        ("a.toml", TOML + "\n[[operation]]\nkind = 'call'\n", r"a\.toml:13: CallOperation needs 'target'"),
        ("a.toml", "x = 1\ny = [", r"a\.toml: not TOML"),
        ("a.toml", "[[operations]]\nkind = 'call'", r"a\.toml: unknown 'operations'"),
        ("a.toml", "operation = 3", r"a\.toml: unknown 'operation'"),
    ],
)
def test_a_bad_file_is_refused_with_file_and_line(tmp_path, name, text, message):
    with pytest.raises(UsageError, match=message) as raised:
        check(written(tmp_path, name, text))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*absent\.jsonl: No such file"):
        check(tmp_path / "absent.jsonl")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"kind": "\xff"}\n')
    with pytest.raises(UsageError, match=r"a\.jsonl:1: not JSON"):
        check(path)


def test_a_stream_can_be_read_twice():
    with spooled(io.BytesIO(b'{"kind": "call", "target": "m:f"}\n')) as path:
        assert check(path) == 1
        assert len(list(operations(path))) == 1
    assert not path.exists()
