import json
from dataclasses import replace

import pytest
from sightings import finding

from fuzzfarm.cli.failures import UsageError
from fuzzfarm.cli.finding_files import SavedFinding, load, load_all, named, remove, save

FINDING = finding(
    id="abc123",
    message="bad \ud800",
    example="f('\\x00')",
    index=None,
    choices=b"\x00\xff",
    last_seen=2.0,
    example_timeout_s=2.5,
    limits={"memory_bytes": 64_000_000},
    network=False,
    hosts=("pear", "apple"),
)


def test_a_saved_finding_is_read_back_as_it_was(tmp_path):
    saved = SavedFinding(FINDING, "/src")
    assert load(save(saved, tmp_path / "new")) == saved


def test_a_finding_that_an_older_fuzzfarm_saved_is_read(tmp_path):
    path = save(SavedFinding(FINDING, "/src"), tmp_path)
    record = json.loads(path.read_text())
    del record["hosts"], record["replays"]
    path.write_text(json.dumps(record))
    assert load(path) == SavedFinding(replace(FINDING, hosts=()), "/src")


def test_a_finding_of_a_command_has_its_input_in_a_file_of_its_own(tmp_path):
    finding = replace(FINDING, command=("/bin/cat", "@@"), crash_exit_codes=(3,), input=b"\x00\xffZ")
    path = save(SavedFinding(finding), tmp_path)
    assert load(path).finding == finding
    assert path.with_suffix(".input").read_bytes() == b"\x00\xffZ"
    assert remove(finding.id, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_saved_finding_is_what_the_replay_process_reads(tmp_path):
    record = json.loads(save(SavedFinding(FINDING), tmp_path).read_text())
    assert record["choices"] == "AP8="


def test_findings_are_named_by_id_prefix_or_file(tmp_path):
    path = save(SavedFinding(FINDING), tmp_path)
    save(SavedFinding(replace(FINDING, id="abd")), tmp_path)
    assert named("abc", tmp_path).finding == FINDING
    assert named("abd", tmp_path).finding.id == "abd"
    assert named(str(path), tmp_path).finding == FINDING
    assert named("zzz", tmp_path) is None
    with pytest.raises(UsageError, match=r"'ab' stands for 2 findings \(abc123, abd"):
        named("ab", tmp_path)


def test_the_whole_id_is_taken_before_longer_ones(tmp_path):
    save(SavedFinding(replace(FINDING, id="ab")), tmp_path)
    save(SavedFinding(FINDING), tmp_path)
    assert named("ab", tmp_path).finding.id == "ab"


def test_findings_are_listed_the_last_seen_first(tmp_path):
    for name, seen in (("old", 1.0), ("new", 3.0), ("mid", 2.0)):
        save(SavedFinding(replace(FINDING, id=name, last_seen=seen)), tmp_path)
    assert [saved.finding.id for saved in load_all(tmp_path)] == ["new", "mid", "old"]


def test_a_finding_of_an_earlier_version_is_read(tmp_path):
    path = save(SavedFinding(FINDING), tmp_path)
    record = json.loads(path.read_text())
    del record["inputs"]
    path.write_text(json.dumps(record))
    assert load(path).finding == FINDING


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "x"}', "\x00"])
def test_a_file_without_a_finding_is_refused(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"x\.json holds no finding"):
        load(path)
