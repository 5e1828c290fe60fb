"""The command line with farms of its own and with a farm in another shell: real servers, workers and signals."""

from __future__ import annotations

import json
import re
import signal
import sys

import planted_bugs
import pytest
from command_line import CommandLine

TEST_FILE = """
from hypothesis import given, strategies as st

@given(st.integers(0, 1000))
def test_small(number):
    assert number < LIMIT

LIMIT = 500
"""


@pytest.fixture
def cli(tmp_path):
    return CommandLine(tmp_path)


@pytest.fixture
def farm(cli):
    """A farm in the foreground of another shell, with one worker; the address is in our environment."""
    with cli.start("up", "--workers", "1") as process:
        try:
            lines = iter(process.stdout.readline, "")
            address = next(line for line in lines if "FUZZFARM_REDIS_URL=" in line)
            cli.variables["FUZZFARM_REDIS_URL"] = address.strip().partition("=")[2]
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
    assert process.returncode == 0


def test_fuzzing_a_file_finds_shows_saves_and_replays_until_it_is_fixed(cli):
    source = cli.folder / "test_it.py"
    source.write_text(TEST_FILE)
    found = cli.run("fuzz", "--examples", "60", "--workers", "1", "test_it.py")
    assert found.code == 1, found
    assert "AssertionError in test_it:test_small" in found.out
    assert "test_small(number=500)" in found.out
    assert "60 examples, 1 finding" in found.out
    assert "fails     10 of 10 when it runs again" in found.out
    assert found.out.replace("\n", "").isprintable()
    name = re.search(r"fuzzfarm replay (\w+)", found.out)[1]
    saved = json.loads((cli.folder / ".fuzzfarm" / "findings" / f"{name}.json").read_text())
    assert saved["root"] in (None, str(cli.folder))

    again = cli.run("replay", name[:5])
    assert again.code == 1, again
    assert again.out.startswith("STILL FAILING: failed 5 of 5 times")

    source.write_text(TEST_FILE.replace("LIMIT = 500", "LIMIT = 5000"))
    fixed = cli.run("replay", "--json", name)
    assert fixed.code == 0, fixed
    assert json.loads(fixed.out)["verdict"] == "fixed"

    listed = cli.run("findings", "--json")
    assert listed.code == 1
    assert json.loads(listed.out)["id"] == name


def test_a_function_without_hints_is_fuzzed_with_told_inputs(cli):
    (cli.folder / "it.py").write_text("def parse(data):\n    assert b'-' not in data\n")
    (cli.folder / "corpus").mkdir()
    (cli.folder / "corpus" / "seed").write_bytes(b"a" + b"b" * 20)
    found = cli.run("fuzz", "--json", "--examples", "500", "--workers", "1", "--seeds", "corpus", "it.py:parse")
    assert found.code == 1, found.err
    [finding] = json.loads(found.out)["findings"]
    assert (finding["target"], finding["inputs"]) == ("it:parse", f"seeds:{cli.folder}/corpus")
    again = cli.run("replay", finding["id"])
    assert "STILL FAILING" in again.out


RARE_FILE = """
from hypothesis import given, settings, strategies as st

@given(st.integers())
@settings(max_examples=1)
def test_small(number):
    print("it is", number)
    assert number < 1000
"""


def test_plain_pytest_runs_what_was_found_first(cli):
    (cli.folder / "test_it.py").write_text(RARE_FILE)
    cli.variables.pop("CI", None)  # there Hypothesis has no database
    alone = cli.python("-m", "pytest", "-q", "test_it.py")
    assert alone.code == 0, alone
    found = cli.run("fuzz", "--examples", "60", "--workers", "1", "test_it.py")
    assert "plain pytest runs 1 finding first: saved in .hypothesis/examples" in found.err
    again = cli.python("-m", "pytest", "-q", "test_it.py")
    assert again.code == 1, again
    assert "it is 1000" in again.out


LIMITED_FILE = """
import resource, socket, time

def soft(name):
    return resource.getrlimit(getattr(resource, "RLIMIT_" + name))[0]

def fuzz_limits(number: int):
    left_s = soft("CPU") - time.clock_gettime(-8)  # the clock that Linux compares with this limit, in whole seconds
    cpu_s = 7 if 6.5 < left_s <= 8 else left_s
    limits = [soft("AS"), cpu_s, soft("FSIZE"), soft("NOFILE"), soft("NPROC")]
    interfaces = [name for _, name in socket.if_nameindex()]
    raise LookupError(" ".join(map(str, limits)) + ", " + " ".join(interfaces))
"""


def test_a_command_is_fuzzed_shown_saved_and_replayed(cli):
    planted_bugs.program(cli.folder)
    words = ("--examples", "60", "--workers", "1", "--inputs", "regex:[a-z]{0,5}Z?", "--crash-exit-code", "3")
    found = cli.run("fuzz", "--json", *words, "--", "./planted", "exit3", "@@")
    assert found.code == 1, found.err
    [finding] = json.loads(found.out)["findings"]
    assert (finding["target"], finding["type"]) == ("command: ./planted exit3 @@", "exit code 3")
    assert finding["command"][0] == str(cli.folder / "planted")
    assert (cli.folder / ".fuzzfarm" / "findings" / f"{finding['id']}.input").read_bytes() == b"Z"
    shown = cli.run("show", finding["id"], "--save-input", "copy")
    assert "script, which fails in the same way without fuzzfarm" in shown.out
    assert (cli.folder / "copy").read_bytes() == b"Z"
    again = cli.run("replay", finding["id"])
    assert (again.code, "STILL FAILING: failed 5 of 5 times\n" in again.out) == (1, True)


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_a_finding_is_replayed_under_the_limits_that_it_was_made_with(cli):
    (cli.folder / "it.py").write_text(LIMITED_FILE)
    words = ("--examples", "3", "--workers", "1", "--memory", "1G", "--cpu", "7", "--file-size", "1M",
             "--open-files", "32", "--processes", "9000", "--no-network")  # fmt: skip
    found = cli.run("fuzz", "--json", *words, "it.py")
    assert found.code == 1, found.err
    [finding] = json.loads(found.out)["findings"]
    assert finding["message"] == "1073741824 7 1048576 32 9000, lo"
    shown = cli.run("show", finding["id"])
    limits = "1 s for an example, 1 GB of memory, 7 s of CPU, files of 1 MB, 32 descriptors, 9,000 processes"
    assert f"{limits}, no network" in shown.out
    again = cli.run("replay", "--json", finding["id"])
    verdict = json.loads(again.out)
    assert (again.code, verdict["verdict"], verdict["same"]) == (1, "still_failing", True)
    assert verdict["failure"]["message"] == finding["message"]


def test_a_target_is_fuzzed_in_the_worker_itself(cli):
    (cli.folder / "inside.py").write_text(
        "import threading\n\n"
        "def fuzz_place(number: int):\n"
        "    assert threading.current_thread() is threading.main_thread(), 'in a thread'\n"
    )
    found = cli.run("fuzz", "--json", "--examples", "50", "--workers", "1", "--isolation", "none", "inside.py")
    assert found.code == 1, found
    [finding] = json.loads(found.out)["findings"]
    assert finding["message"] == "in a thread"
    assert finding["replay_failures"] == 0  # it is run again in children


def test_a_clean_fuzz_run_is_exit_code_0_and_one_json_document(cli):
    ended = cli.run("fuzz", "--json", "--examples", "50", "--workers", "1", "cli_targets:fuzz_nothing_wrong")
    assert ended.code == 0, ended
    assert ended.err == ""
    document = json.loads(ended.out)
    assert (document["examples"], document["findings"], document["errors"]) == (50, [], {})
    assert document["skipped"] == {}


TEST_FILE_WITH_FIXTURE = (
    TEST_FILE
    + """
@given(n=st.integers())
def test_file(tmp_path, n): pass
"""
)


def test_what_was_skipped_is_listed_at_the_end_with_its_reason(cli):
    (cli.folder / "tests").mkdir()
    (cli.folder / "tests" / "test_it.py").write_text(TEST_FILE_WITH_FIXTURE.replace("LIMIT = 500", "LIMIT = 5000"))
    shown = cli.run("fuzz", "--examples", "20", "--workers", "1", "tests/")
    assert shown.code == 0, shown
    header, row, last = shown.out.splitlines()
    assert header.split() == ["SKIPPED", "WHY"]
    assert re.fullmatch("test_it:test_file +needs the fixture tmp_path", row)
    assert last == "20 examples, 0 findings (20 distinct, 0% invalid)"
    (cli.folder / "tests" / "test_it.py").write_text("")
    empty = cli.run("fuzz", "tests/")
    assert (empty.code, "no file in it has Hypothesis tests" in empty.err) == (2, True)


@pytest.mark.parametrize("budget", [("--examples", "100000000"), ("--forever",)])
def test_ctrl_c_shows_and_saves_what_was_found_and_stops_everything(cli, budget):
    with cli.start("fuzz", *budget, "--workers", "1", "cli_targets:fuzz_small_numbers") as process:
        notes = [next(line for line in process.stderr if line.startswith("found "))]
        notes += [next(line for line in process.stderr if "1 finding," in line)]
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=30)
    assert notes[0].startswith("found AssertionError in cli_targets:fuzz_small_numbers, cli_targets.py:")
    assert "found " not in rest  # it was named once
    assert process.returncode == 1
    assert "AssertionError in cli_targets:fuzz_small_numbers" in out
    assert len(list((cli.folder / ".fuzzfarm" / "findings").glob("*.json"))) == 1


def test_a_run_ends_with_the_first_new_finding_made_small(cli):
    targets = ["cli_targets:fuzz_nothing_wrong", "cli_targets:fuzz_small_numbers"]
    ended = cli.run("fuzz", "--json", "--forever", "--until-finding", "--workers", "1", *targets)
    assert ended.code == 1, ended
    document = json.loads(ended.out)
    assert (document["ended"], document["interrupted"]) == ("finding", False)
    assert [finding["example"] for finding in document["findings"]] == ["fuzz_small_numbers(number=101)"]
    # It is known now, so the next run goes on until its time is over.
    again = cli.run("fuzz", "--json", "--time", "3", "--until-finding", "--workers", "1", "--seed", "5", *targets)
    assert json.loads(again.out)["ended"] == "done", again
    assert [finding["id"] for finding in json.loads(again.out)["findings"]] == [document["findings"][0]["id"]]


def test_a_finding_that_does_not_fail_again_ends_no_run(cli):
    (cli.folder / "stateful.py").write_text(
        "seen = set()\n\ndef fuzz_count(number: int):\n    seen.add(number)\n    assert len(seen) < 50\n"
    )
    ended = cli.run("fuzz", "--json", "--time", "4", "--until-finding", "--workers", "1", "stateful.py")
    document = json.loads(ended.out)
    [finding] = document["findings"]
    assert (document["ended"], finding["replays"], finding["replay_failures"]) == ("done", 10, 0)


def test_runs_repeat_a_target_with_the_next_seeds(cli):
    ended = cli.run(
        *("fuzz", "--json", "--examples", "40", "--runs", "3", "--seed", "4", "--workers", "1"),
        "cli_targets:fuzz_nothing_wrong",
    )
    document = json.loads(ended.out)
    assert (ended.code, document["examples"]) == (0, 120), ended
    name = "cli_targets:fuzz_nothing_wrong"
    assert {key: one["examples"] for key, one in document["targets"].items()} == {
        f"{name} seed 4": 40,
        f"{name} seed 5": 40,
        f"{name} seed 6": 40,
    }


JOBS = """
[[operation]]
kind = "call"
key = "root"
target = "math:sqrt"
args = [16]

[[operation]]
kind = "call"
key = "wrong"
target = "math:sqrt"
args = [-1]

[[operation]]
kind = "fuzz"
key = "fuzz"
target = "cli_targets:fuzz_small_numbers"
examples = 200

[[operation]]
kind = "fuzz"
key = "letters"
target = "cli_targets:fuzz_late_letters"
examples = 200
"""


@pytest.fixture
def mixed(cli, farm):
    """A batch of calls and a fuzz operation, submitted from another shell."""
    (cli.folder / "jobs.toml").write_text(JOBS)
    ended = cli.run("submit", "--key", "mixed", "--no-wait", "jobs.toml")
    assert ended.code == 0, ended
    return "mixed"


def test_a_batch_is_watched_from_another_shell_and_its_findings_are_kept(cli, mixed):
    watched = cli.run("watch", mixed)
    assert watched.code == 1, watched
    assert "ok      root  4.0" in watched.out
    assert "FAILED  wrong  exception: ValueError: " in watched.out
    found = cli.run("findings", mixed)
    assert found.code == 1
    assert "AssertionError in cli_targets:fuzz_small_numbers" in found.out
    assert len(list((cli.folder / ".fuzzfarm" / "findings").glob("*.json"))) == 2


def test_a_batch_is_read_as_json_from_another_shell(cli, mixed):
    lines = [json.loads(line) for line in cli.run("watch", "--json", mixed).out.splitlines()]
    assert {line["key"] for line in lines} == {"root", "wrong", "fuzz", "letters"}
    document = json.loads(cli.run("results", "--json", mixed).out)
    assert document["results"]["root"] == 4.0
    assert set(document["errors"]) == {"wrong"}
    assert json.loads(cli.run("status", "--json", mixed).out)["state"] == "done"
    assert [json.loads(line)["key"] for line in cli.run("batches", "--json").out.splitlines()] == [mixed]


def elsewhere(cli, tmp_path_factory):
    """The same shell in another folder, where nothing is saved."""
    return CommandLine(tmp_path_factory.mktemp("elsewhere"), **cli.variables)


def test_findings_of_the_farm_are_listed_shown_replayed_and_forgotten_from_anywhere(cli, mixed, tmp_path_factory):
    assert cli.run("watch", mixed).code == 1
    other = elsewhere(cli, tmp_path_factory)
    exported = [json.loads(line) for line in other.run("findings", "--json").out.splitlines()]
    by_target = {found["target"].removeprefix("cli_targets:"): found for found in exported}
    assert set(by_target) == {"fuzz_small_numbers", "fuzz_late_letters"}
    finding = by_target["fuzz_small_numbers"]
    listed = other.run("findings")
    assert listed.code == 1
    row = rf"^{finding['id']} +{finding['count']} .* AssertionError in cli_targets:"
    assert re.search(row, listed.out, re.MULTILINE)
    assert "2 findings" in listed.out

    shown = other.run("show", finding["id"][:8])
    assert shown.code == 0, shown
    for name in ("message", "example", "traceback", "signature"):
        assert finding[name] in shown.out
    assert finding["hosts"][0] in shown.out
    assert "fails     10 of 10 when it runs again" in shown.out
    assert "fuzz_small_numbers(number=101)" in shown.out.partition("script, which fails")[2]
    assert "no decorator: its target is no Hypothesis test" in shown.err
    document = json.loads(other.run("show", "--json", finding["id"]).out)
    assert document["reproducers"]["script"] in shown.out
    assert {name: document[name] for name in finding} == finding

    replayed = other.run("replay", finding["id"])
    assert replayed.code == 1, replayed
    assert replayed.out.startswith("STILL FAILING: failed 5 of 5 times")

    for word, says in (("zz", "there is no finding 'zz' in .fuzzfarm/findings and on the farm"), ("", "2 findings")):
        for command in ("show", "replay", "forget"):
            refused = other.run(command, word)
            assert refused.code == 2, refused
            assert says in refused.err
            assert refused.err.count("\n") == 1

    forgotten = other.run("forget", finding["id"])
    assert forgotten.code == 0, forgotten
    assert forgotten.out == "forgot AssertionError in cli_targets:fuzz_small_numbers on the farm\n"
    assert "1 finding\n" in other.run("findings").out


def test_a_running_batch_is_cancelled_from_another_shell(cli, farm):
    (cli.folder / "slow.jsonl").write_text('{"kind": "subprocess", "command": ["sleep", "1000"], "timeout_s": 2000}\n')
    assert cli.run("submit", "--key", "slow", "--no-wait", "slow.jsonl").code == 0
    with cli.start("watch", "slow") as watching:
        ended = cli.run("cancel", "--json", "slow")
        assert json.loads(ended.out)["cancelled"] == 1
        out, _ = watching.communicate(timeout=30)
    assert watching.returncode == 1
    assert "FAILED  0  cancelled: " in out


def test_a_second_worker_joins_and_the_farm_is_in_order(cli, farm):
    with cli.start("worker", "--allow-target", "*", "--name", "second", "--lease", "2", "--grace", "1") as process:
        try:
            hosts = set()
            while "second" not in hosts and process.poll() is None:
                *records, glance = map(json.loads, cli.run("workers", "--json").out.splitlines())
                hosts = {record["host"] for record in records}
            shown = cli.run("workers")
            doctor = cli.run("doctor")
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert "second" in hosts
    assert (glance["farm"]["workers"], glance["farm"]["hosts"], glance["farm"]["waiting"]) == (2, 2, 0)
    assert re.search(r"^second +\d+ .* 0/50 +0 +0 .* ago$", shown.out, re.MULTILINE), shown
    assert "2 workers on 2 hosts, 0 of 100 slots used; 0 chunks waiting (slots 0, fuzz 0); 0 running" in shown.out
    assert process.returncode == 0
    assert doctor.code == 0, doctor
    assert "ok       connection: unix://" in doctor.out
    assert "2 workers" in doctor.out
