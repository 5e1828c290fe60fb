"""Replays: `python -m fuzzfarm_worker.fuzzing.replay` reads a finding as JSON and says whether it still fails.

On stdin one JSON object with the fields of a `Finding`, its `choices` in base64. On stdout one JSON object:

    verdict      "still_failing", "flaky", "fixed", or "error" when the target cannot be run at all
    runs         how often the example ran
    failures     how often it failed
    same         whether it failed with the finding's own signature each time it failed
    addressed    "index" or "choices": how the example was found again
    failure      the last failure (kind, type, message, location, signature, example, traceback), or null
    python, hypothesis    the versions that ran it
    error        why there is no verdict, or null

Exit code 0: fixed; 1: still failing or flaky; 2: error.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fuzzfarm_shared.errors import FuzzfarmError, InvalidOperationError
from fuzzfarm_shared.inputs import inputs_word
from fuzzfarm_worker.fuzzing.deaths import death_failure
from fuzzfarm_worker.fuzzing.interpreter import ChildLostError, Interpreter
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.words import strategy_word
from fuzzfarm_worker.processes import ProcessManager

RUNS = 5
"""Enough to see an even chance of failing as flaky in 15 of 16 replays, and few enough for hangs and crashes."""

MAX_INPUT_BYTES = 4_000_000
"""Largest finding that is read; ours are far below."""


@dataclass(frozen=True, slots=True)
class Case:
    """The example to run again.

    Attributes:
        target: "module:qualname".
        strategy: the named strategy, or None.
        inputs: the word that says what is generated, or None.
        seed: with `index`, the example's address.
        index: None when only the choices tell the example.
        choices: encoded choices, or empty.
        signature: of the finding.
        python: version that found it.
        hypothesis: version that found it.
    """

    target: str
    strategy: str | None
    inputs: str | None
    seed: int
    index: int | None
    choices: bytes
    signature: str
    python: str
    hypothesis: str


def read_case(finding: Mapping[str, Any]) -> Case:
    """Return the example of a finding.

    Raises:
        InvalidOperationError: when a field is missing or is not what it should be.
    """
    try:
        return Case(
            target=str(finding["target"]),
            strategy=finding.get("strategy"),
            inputs=None if finding.get("inputs") is None else inputs_word(finding["inputs"]),
            seed=int(finding.get("seed", 0)),
            index=None if finding.get("index") is None else int(finding["index"]),
            choices=base64.b64decode(finding.get("choices") or "", validate=True),
            signature=str(finding.get("signature", "")),
            python=str(finding.get("python", "")),
            hypothesis=str(finding.get("hypothesis", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as exc:
        raise InvalidOperationError(
            f"this is no finding ({exc}): pass one as `fuzzfarm findings --json` prints it"
        ) from exc


async def replay(
    finding: Mapping[str, Any], *, runs: int = RUNS, example_timeout_s: float = 1.0, memory_bytes: int | None = None
) -> dict[str, Any]:
    """Run the example of a finding several times in fresh children and return the verdict.

    Args:
        finding: the fields of a `Finding`, `choices` in base64.
        runs: how often.
        example_timeout_s: seconds for each run.
        memory_bytes: address space of the children, or None for no limit.

    Raises:
        FuzzfarmError: when the finding cannot be read, or its target cannot be run.
    """
    case = read_case(finding)
    async with ProcessManager() as processes, Nursery(processes) as nursery:
        session = _Session(nursery, case, example_timeout_s, memory_bytes)
        try:
            failures = [failure for _ in range(runs) if (failure := await session.once()) is not None]
        finally:
            await session.close()
    return {
        "verdict": ("fixed", "still_failing", "flaky")[bool(failures) + (0 < len(failures) < runs)],
        "runs": runs,
        "failures": len(failures),
        "same": all(failure["signature"] == case.signature for failure in failures),
        "addressed": session.addressed,
        "failure": _printable(failures[-1]) if failures else None,
        "python": session.python,
        "hypothesis": session.hypothesis,
        "error": None,
    }


def _printable(failure: dict[str, Any]) -> dict[str, Any]:
    return {**failure, "choices": base64.b64encode(failure["choices"]).decode("ascii")}


class _Session:
    """Children for one example: one while it lives, another when it died."""

    def __init__(self, nursery: Nursery, case: Case, example_timeout_s: float, memory_bytes: int | None) -> None:
        self._nursery = nursery
        self._case = case
        self._timeout_s = example_timeout_s
        self._memory_bytes = memory_bytes
        self._child: Interpreter | None = None
        self.addressed = ""
        self.python = ""
        self.hypothesis = ""

    async def once(self) -> dict[str, Any] | None:
        child = self._child = self._child or await self._start()
        index, choices = self._address()
        try:
            return await child.once(self._case.seed, index, choices, self._timeout_s)
        except ChildLostError:
            return await self._bury(child)

    def _address(self) -> tuple[int | None, bytes]:
        """Prefer the address: choices of a target that draws while it runs end where its interpreter did."""
        case = self._case
        same_versions = (case.python, case.hypothesis) == (self.python, self.hypothesis)
        by_index = case.index is not None and (same_versions or not case.choices)
        self.addressed = "index" if by_index else "choices"
        return (case.index, b"") if by_index else (None, case.choices)

    async def _start(self) -> Interpreter:
        case = self._case
        target = Target(case.target, strategy_word(case.strategy, case.inputs))
        child = self._child = await self._nursery.child(target, self._memory_bytes)
        self.python, self.hypothesis = child.python, child.hypothesis
        return child

    async def _bury(self, child: Interpreter) -> dict[str, Any]:
        hung = not child.dead
        if hung:
            await child.dump_stack()
            child.kill()
        await child.exited()
        death = child.death(hung=hung)
        self._child = None
        await child.close()
        case = self._case
        told = {"example": "", "choices": case.choices}
        return {**death_failure(case.target, death, self._timeout_s, told), "index": case.index}

    async def close(self) -> None:
        if self._child is not None:
            await self._child.close()


def _verdict(arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        finding = json.loads(sys.stdin.buffer.read(MAX_INPUT_BYTES + 1))
        if not isinstance(finding, dict):
            raise InvalidOperationError("stdin holds no JSON object: pass one finding")
        verdict = asyncio.run(
            replay(
                finding,
                runs=arguments.runs,
                example_timeout_s=arguments.example_timeout_s,
                memory_bytes=arguments.memory_bytes,
            )
        )
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
    parser.add_argument("--memory-bytes", type=int, default=None, help="address space of the child")
    verdict = _verdict(parser.parse_args())
    print(json.dumps(verdict))  # the protocol of this process
    return {"fixed": 0, "error": 2}.get(verdict["verdict"], 1)


if __name__ == "__main__":
    sys.exit(main())
