"""Replaying findings in tests, as the command line does."""

import base64
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fuzzfarm_shared.outcomes import Finding

HERE = str(Path(__file__).parent)


def as_json(finding: Finding) -> dict[str, Any]:
    given = None if finding.input is None else base64.b64encode(finding.input).decode()
    return {**dataclasses.asdict(finding), "choices": base64.b64encode(finding.choices).decode(), "input": given}


def replay(finding: object, *options: str, **environment: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "fuzzfarm_worker.fuzzing.replay", *options],
        input=json.dumps(finding),
        env={**os.environ, "PYTHONPATH": HERE, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)
