"""Replays: `python -m fuzzfarm_worker.fuzzing.replay` reads a finding as JSON and says whether it still fails.

On stdin one JSON object with the fields of a `Finding`, its `choices` and `input` in base64. On stdout one JSON object:

    verdict      "still_failing", "flaky", "fixed", or "error" when the target cannot be run at all
    runs         how often the example ran
    failures     how often it failed
    same         whether it failed with the finding's own signature each time it failed
    addressed    "index", "choices" or "input": how the example was found again
    failure      the last failure (kind, type, message, location, signature, example, traceback), or null
    python, hypothesis    the versions that ran it
    error        why there is no verdict, or null

The example has the `limits` and the `network` that the finding tells.

Exit code 0: fixed; 1: still failing or flaky; 2: error.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import json
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from fuzzfarm_shared.errors import FuzzfarmError, InvalidOperationError, TargetError
from fuzzfarm_shared.inputs import inputs_word
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.repeats import Case, run_again
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.fuzzing.words import Program, strategy_word
from fuzzfarm_worker.processes import ProcessManager

RUNS = 5
"""Enough to see an even chance of failing as flaky in 15 of 16 replays, and few enough for hangs and crashes."""

MAX_INPUT_BYTES = 4_000_000
"""Largest finding that is read; ours are far below."""


def read_case(finding: Mapping[str, Any], example_timeout_s: float) -> Case:
    """Return the example of a finding.

    Raises:
        InvalidOperationError: when a field is missing or is not what it should be.
        TargetError: when the program of a command is not here.
    """
    try:
        given = None if finding.get("input") is None else base64.b64decode(finding["input"], validate=True)
        by_choices = (None if finding.get("index") is None else int(finding["index"]), finding.get("choices") or "")
        # A command that is told its input has that as its first example.
        index, choices = by_choices if given is None else (0, "")
        return Case(
            target=_target(finding, given),
            restrictions=Restrictions.told_by(finding),
            timeout_s=example_timeout_s,
            seed=int(finding.get("seed", 0)),
            index=index,
            choices=base64.b64decode(choices, validate=True),
            python=str(finding.get("python", "")),
            hypothesis=str(finding.get("hypothesis", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as exc:
        raise InvalidOperationError(
            f"this is no finding ({exc}): pass one as `fuzzfarm findings --json` prints it"
        ) from exc


def _target(finding: Mapping[str, Any], given: bytes | None) -> Target:
    """Return what a child has to load.

    Args:
        finding: its fields.
        given: what its command was given, byte for byte; None: the address or the choices tell it.

    Raises:
        TargetError: when its program is not here.
    """
    inputs = None if finding.get("inputs") is None else inputs_word(finding["inputs"])
    strategy = None if given is not None else strategy_word(finding.get("strategy"), inputs)
    name, command = str(finding["target"]), [*map(str, finding.get("command") or ())]
    if not command:
        return Target(name, strategy)
    codes = [*map(int, finding.get("crash_exit_codes") or ())]
    return Target(Program(name, [_program(command[0]), *command[1:]], codes, given).word, strategy)


def _program(path: str) -> str:
    """Return the program that a worker ran: the one at its path, or else one of its name."""
    found = shutil.which(path) or shutil.which(os.path.basename(path))
    if found is None:
        raise TargetError(path, f"there is no program {path!r} here, and none of its name: install it")
    return os.path.abspath(found)


async def replay(finding: Mapping[str, Any], *, runs: int = RUNS, example_timeout_s: float = 1.0) -> dict[str, Any]:
    """Run the example of a finding several times, each in a fresh child, and return the verdict.

    Args:
        finding: the fields of a `Finding`, `choices` and `input` in base64.
        runs: how often.
        example_timeout_s: seconds for each run.

    Raises:
        FuzzfarmError: when the finding cannot be read, or its target cannot be run.
    """
    case = read_case(finding, example_timeout_s)
    async with ProcessManager() as processes, Nursery(processes) as nursery:
        repeats = [await run_again(nursery, case) for _ in range(runs)]
    failures = [repeat.failure for repeat in repeats if repeat.failure is not None]
    return {
        "verdict": ("fixed", "still_failing", "flaky")[bool(failures) + (0 < len(failures) < runs)],
        "runs": runs,
        "failures": len(failures),
        "same": all(failure["signature"] == finding.get("signature") for failure in failures),
        "addressed": repeats[-1].addressed if finding.get("input") is None else "input",
        "failure": {**_printable(failures[-1]), "index": finding.get("index")} if failures else None,
        "python": repeats[-1].python,
        "hypothesis": repeats[-1].hypothesis,
        "error": None,
    }


def _printable(failure: dict[str, Any]) -> dict[str, Any]:
    told = {**failure, "choices": base64.b64encode(failure["choices"]).decode("ascii")}
    return {name: value for name, value in told.items() if name != "input"}


def _verdict(arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        finding = json.loads(sys.stdin.buffer.read(MAX_INPUT_BYTES + 1))
        if not isinstance(finding, dict):
            raise InvalidOperationError("stdin holds no JSON object: pass one finding")
        verdict = asyncio.run(replay(finding, runs=arguments.runs, example_timeout_s=arguments.example_timeout_s))
    except (FuzzfarmError, json.JSONDecodeError) as exc:
        return {"verdict": "error", "error": str(exc)}
    if verdict["failure"] is not None and not verdict["failure"]["example"]:
        verdict["failure"]["example"] = finding.get("example", "")
    return verdict


def main() -> int:
    """Replay the finding on stdin."""
    parser = argparse.ArgumentParser(prog="python -m fuzzfarm_worker.fuzzing.replay", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="how often to run it")
    parser.add_argument("--example-timeout-s", type=float, default=1.0, help="seconds for each run")
    verdict = _verdict(parser.parse_args())
    print(json.dumps(verdict))  # the protocol of this process
    return {"fixed": 0, "error": 2}.get(verdict["verdict"], 1)


if __name__ == "__main__":
    sys.exit(main())
