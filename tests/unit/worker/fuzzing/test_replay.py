import base64
import os
from pathlib import Path
from typing import Any

import planted_bugs
import pytest
from replays import as_json, replay
from shard_runs import operation, run, smallest

from fuzzfarm_shared.operations import FuzzOperation


@pytest.mark.parametrize("target", ["fails_above_a_thousand", "segfaults", "exits", "hangs"])
def test_a_finding_that_fails_again_is_still_failing(target: str) -> None:
    [finding] = run(operation(target, example_timeout_s=0.5), 0, 100).findings
    code, verdict = replay(as_json(finding), "--runs", "2", "--example-timeout-s", "0.5")
    assert (code, verdict["verdict"], verdict["failures"], verdict["same"]) == (1, "still_failing", 2, True)
    assert verdict["failure"]["example"] == finding.example
    assert verdict["failure"]["signature"] == finding.signature


def test_another_version_replays_by_choices() -> None:
    [finding] = run(operation("exits"), 0, 100).findings
    _code, here = replay(as_json(finding), "--runs", "1")
    code, elsewhere = replay({**as_json(finding), "hypothesis": "6.0.0"}, "--runs", "1")
    assert (here["addressed"], elsewhere["addressed"]) == ("index", "choices")
    assert (code, elsewhere["verdict"]) == (1, "still_failing")


def test_a_finding_of_told_inputs_is_replayed_with_them() -> None:
    finding = smallest(operation("has_no_dash", inputs="regex:[a-z]-"), 10)
    code, verdict = replay({**as_json(finding), "hypothesis": "6.0.0"}, "--runs", "1")
    assert (code, verdict["addressed"], verdict["failure"]["example"]) == (1, "choices", "has_no_dash('a-')")


@pytest.mark.parametrize(
    ("bug", "fields"),
    [("signal", {}), ("report", {}), ("hang", {"example_timeout_s": 0.5}), ("exit3", {"crash_exit_codes": [3]})],
)
def test_a_command_is_replayed_with_exactly_its_input(tmp_path: Path, bug: str, fields: dict[str, Any]) -> None:
    program = str(planted_bugs.program(tmp_path))
    fuzz = FuzzOperation(command=[program, bug, "@@"], inputs="regex:[a-z]{0,5}Z", **fields)
    [finding] = run(fuzz, 0, 3).findings
    gone = {**as_json(finding), "inputs": "seeds:/no/such/folder", "hypothesis": "6.0.0"}
    code, verdict = replay(gone, "--runs", "2", "--example-timeout-s", "0.5")
    assert (code, verdict["verdict"], verdict["same"], verdict["addressed"]) == (1, "still_failing", True, "input")
    assert verdict["failure"]["id"] == finding.id
    code, verdict = replay({**gone, "input": base64.b64encode(b"nothing").decode()}, "--runs", "2")
    assert (code, verdict["verdict"]) == (0, "fixed")


def test_a_program_that_is_elsewhere_is_found_by_its_name(tmp_path: Path) -> None:
    program = planted_bugs.program(tmp_path)
    [finding] = run(FuzzOperation(command=[str(program), "signal"], inputs="regex:Z"), 0, 1).findings
    there = {**as_json(finding), "command": ["/on/a/worker/planted", "signal"]}
    code, verdict = replay(there, "--runs", "1", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (code, verdict["same"]) == (1, True)
    code, verdict = replay(there)
    assert (code, "there is no program '/on/a/worker/planted' here" in verdict["error"]) == (2, True)


def test_an_example_that_passes_now_is_fixed() -> None:
    [finding] = run(operation("fails_above_a_thousand")).findings
    code, verdict = replay({**as_json(finding), "target": "fuzzing_subjects:passes"})
    assert (code, verdict["verdict"], verdict["failure"]) == (0, "fixed", None)


def test_an_example_that_fails_now_and_then_is_flaky(tmp_path: Path) -> None:
    [finding] = run(operation("fails_above_a_thousand")).findings
    flaky = {**as_json(finding), "target": "fuzzing_subjects:sometimes"}
    code, verdict = replay(flaky, "--runs", "4", TMPDIR=str(tmp_path))
    assert (code, verdict["verdict"], verdict["failures"], verdict["same"]) == (1, "flaky", 2, False)


@pytest.mark.parametrize(
    ("finding", "says"),
    [
        ({"target": "no_such_module:f", "choices": ""}, "cannot import module"),
        ({"choices": ""}, "this is no finding"),
        ({"target": "fuzzing_subjects:passes", "choices": "%%%"}, "this is no finding"),
        ([], "no JSON object"),
    ],
)
def test_what_cannot_be_replayed_is_an_error_that_says_why(finding: object, says: str) -> None:
    code, verdict = replay(finding)
    assert (code, verdict["verdict"]) == (2, "error")
    assert says in verdict["error"]
