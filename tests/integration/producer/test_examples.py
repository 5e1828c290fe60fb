"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CommandLine

EXAMPLES = Path(__file__).parents[3] / "examples"
ALONE = ["calls", "subprocess_jobs", "progress", "tools", "fuzzing", "notebook"]
MOST_LINES = 40


def run(name, environment):
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("name", ALONE)
def test_an_example_runs_alone(name, tmp_path):
    ended = run(name, CommandLine(tmp_path).variables)
    assert ended.returncode == 0, ended
    assert ended.stdout


def test_the_example_for_several_hosts_uses_the_farm_of_the_environment(tmp_path, start_worker, server_url, namespace):
    start_worker()
    farm = CommandLine(tmp_path, FUZZFARM_REDIS_URL=server_url, FUZZFARM_NAMESPACE=namespace)
    ended = run("several_hosts", farm.variables)
    assert ended.returncode == 0, ended
    assert "100,000 of 100,000 done" in ended.stdout


def test_every_example_is_short_and_tested():
    files = sorted(set(EXAMPLES.glob("*.py")) - set(EXAMPLES.glob("test_*.py")))  # those are what the README fuzzes
    assert [file.stem for file in files] == sorted([*ALONE, "several_hosts"])
    assert all(len(file.read_text().splitlines()) < MOST_LINES for file in files)
