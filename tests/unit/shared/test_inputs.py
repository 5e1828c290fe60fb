import pytest

from fuzzfarm_shared.errors import InvalidOperationError
from fuzzfarm_shared.inputs import Inputs, InputsKind, parse_inputs
from fuzzfarm_shared.operations import FuzzOperation


@pytest.mark.parametrize(
    ("word", "kind", "argument"),
    [
        ("bytes", InputsKind.BYTES, ""),
        ("text", InputsKind.TEXT, ""),
        ("regex:a:b", InputsKind.REGEX, "a:b"),
        ("regex:(", InputsKind.REGEX, "("),  # compiled in a child only
        ("seeds:/a folder", InputsKind.SEEDS, "/a folder"),
        ('schema:{"type": "null"}', InputsKind.SCHEMA, '{"type": "null"}'),
        ("schema:true", InputsKind.SCHEMA, "true"),
    ],
)
def test_a_word_says_what_is_generated(word: str, kind: InputsKind, argument: str) -> None:
    assert parse_inputs(word) == Inputs(kind, argument)
    assert str(parse_inputs(word)) == word
    assert FuzzOperation(target="m:f", inputs=word).inputs == word


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("", "write one of bytes, text, regex:PATTERN, seeds:FOLDER, schema:JSON"),
        ("Bytes", "write one of"),
        ("bytes:", "write one of"),
        ("regex", "write one of"),
        ("regex:", "there is no PATTERN in 'regex:': write regex:PATTERN"),
        ("seeds:a\0b", "remove it"),
        ("schema:{", "the schema is not JSON"),
        ("schema:" + "[" * 50_000, "the schema is not JSON"),
        ("schema:[]", "a schema is an object, true or false, not list"),
        ("text" * 20_000, "65536"),
    ],
    ids=lambda part: part[:30],
)
def test_another_word_is_refused_and_says_what_to_write(word: str, says: str) -> None:
    with pytest.raises(InvalidOperationError, match=says):
        FuzzOperation(target="m:f", inputs=word)


def test_inputs_come_from_one_place() -> None:
    with pytest.raises(InvalidOperationError, match="give strategy or inputs, not both"):
        FuzzOperation(target="m:f", strategy="m:s", inputs="bytes")
