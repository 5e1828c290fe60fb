import pytest

from fuzzfarm.cli.failures import UsageError
from fuzzfarm.cli.input_options import chosen_inputs


def test_without_options_the_target_says_what_is_generated():
    assert chosen_inputs(None, None, None) is None


def test_a_schema_is_read_and_written_short(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text('{\n  "type": "array"\n}\n')
    assert chosen_inputs(None, file, None) == 'schema:{"type":"array"}'


def test_a_folder_that_is_here_gets_its_full_path_and_another_stays_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "corpus").mkdir()
    monkeypatch.chdir(tmp_path)
    assert chosen_inputs(None, None, "corpus") == f"seeds:{tmp_path}/corpus"
    assert chosen_inputs(None, None, "on/workers") == "seeds:on/workers"


@pytest.mark.parametrize(("content", "says"), [(None, "cannot read the schema"), (b"{", "holds no JSON Schema"),
                                               (b"\xff", "cannot read the schema")])  # fmt: skip
def test_a_schema_that_cannot_be_read_is_refused(tmp_path, content, says):
    file = tmp_path / "schema.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=says):
        chosen_inputs(None, file, None)


def test_only_one_option_says_what_is_generated(tmp_path):
    with pytest.raises(UsageError, match="give one of them"):
        chosen_inputs("bytes", None, "corpus")
