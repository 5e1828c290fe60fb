import asyncio
import re
from pathlib import Path

import pytest
from shard_runs import operation, pool, progress_of, run, smallest

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import FuzzResult
from fuzzfarm_worker.fuzzing import subject

TOOL = """{
    "type": "object",
    "properties": {"path": {"type": "string"}, "limit": {"type": "integer", "minimum": 0}},
    "required": ["path", "limit"]
}"""


@pytest.mark.parametrize(
    ("target", "inputs", "example"),
    [
        ("keeps", "bytes", "keeps(b'\\x80')"),
        ("keeps", "text", "keeps('\\x80')"),
        ("has_no_dash", "regex:[a-z]+-[0-9]{3}", "has_no_dash('a-000')"),
        ("has_no_dash", 'schema:{"enum": ["a", "-", "--"]}', "has_no_dash('-')"),
        ("is_a_tool", f"schema:{TOOL}", "is_a_tool(path='', limit=1000)"),
    ],
)
def test_a_callable_without_hints_gets_what_a_word_says(target: str, inputs: str, example: str) -> None:
    finding = smallest(operation(target, inputs=inputs), 200)
    assert finding.example == example
    assert (finding.inputs, finding.strategy) == (inputs, None)


def test_seeds_are_mutated_until_one_fails(tmp_path: Path) -> None:
    (tmp_path / "seed").write_bytes(b"plain text of seven bits")
    [finding] = run(operation("keeps", inputs=f"seeds:{tmp_path}"), 0, 200).findings
    assert re.fullmatch(r"keeps\(b'.*\\x[89a-f].*'\)", finding.example)


def test_inputs_of_another_kind_do_not_get_the_child_of_the_first() -> None:
    async def main() -> list[FuzzResult]:
        async with pool() as children:
            words = [f"regex:[{letters}]-" for letters in ("a-c", "g-i")]
            told = [await progress_of(children, operation("has_no_dash", inputs=word), 0, 50) for word in words]
            return [merge(progress.result for progress in run) for run in told]

    assert [result.findings[0].example for result in asyncio.run(main())] == ["has_no_dash('a-')", "has_no_dash('g-')"]


@pytest.mark.parametrize(
    ("name", "inputs", "says"),
    [
        ("keeps", "regex:(", r"'\(' is no regular expression \(.*\): repair it"),
        ("keeps", 'schema:{"if": {}}', "the JSON Schema cannot be used: # has 'if', which is not supported"),
        ("keeps", "schema:false", "it allows no value"),
        ("keeps", "seeds:/no/such/folder", "cannot read the seeds in '/no/such/folder' on this worker: No such file"),
        ("TestMethods.test_limit", "bytes", "leave strategy and inputs out"),
    ],
)
def test_inputs_that_cannot_be_made_are_an_error_before_anything_runs(name: str, inputs: str, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        subject.load(f"fuzzing_subjects:{name}", f"inputs: {inputs}")


def test_an_empty_folder_of_seeds_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="has no files of at most 65,536 bytes"):
        subject.load("fuzzing_subjects:keeps", f"inputs: seeds:{tmp_path}")


def test_a_word_is_no_name_that_anybody_could_own() -> None:
    subject.check_own("inputs: regex:os:getpid")
