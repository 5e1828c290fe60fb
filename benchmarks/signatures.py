"""Signatures on planted bugs: whether one bug is one finding, and two are two. `--json`, `--failures N` (20).

Each failure is one example in a child of its own, as a confirmation runs it. Of all pairs of failures, precision is the
share of those with one signature that are of one bug, and recall the share of those of one bug with one signature.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import count

from measure import Row, report
from signature_bugs import BUGS

from fuzzfarm_shared.operations import ProcessLimits
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.repeats import Case, run_again
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.processes import ProcessManager

FAILURES = 20
BAR = 0.95
TARGET = Target("signature_bugs:planted", "signature_bugs:cases")
HANG_S = 0.3
OTHER_S = 60.0
"""Limits of an example that hangs, and of any other, however busy the machine is."""

MEMORY_BYTES = 1_000_000_000
DESCRIBE_S = 10.0
_NAME = re.compile(r"planted\(\s*'([^']+)'")


async def examples_of(nursery: Nursery, failures: int) -> dict[str, list[int]]:
    """Return the indexes of so many examples of each bug."""
    found: dict[str, list[int]] = {name: [] for name in BUGS}
    child = await nursery.child(TARGET, Restrictions())
    for index in count():
        described = await child.describe(0, index, DESCRIBE_S)
        assert described is not None
        match = _NAME.match(described["example"])
        assert match is not None, described
        if len(found[match[1]]) < failures:
            found[match[1]].append(index)
        if all(len(indexes) == failures for indexes in found.values()):
            break
    await child.close()
    return found


async def signature_of(nursery: Nursery, name: str, index: int) -> str:
    """Return the signature of an example, which has to fail as its bug does."""
    case = Case(
        target=TARGET,
        restrictions=Restrictions(ProcessLimits(memory_bytes=MEMORY_BYTES if name == "memory" else None)),
        timeout_s=HANG_S if BUGS[name].type == "hang" else OTHER_S,
        seed=0,
        index=index,
        choices=b"",
        python="",
        hypothesis="",
    )
    failure = (await run_again(nursery, case)).failure
    assert failure is not None, f"{name}: example {index} passes"
    assert failure["type"] == BUGS[name].type, f"{name}: example {index} is {failure['type']}"
    return str(failure["signature"])


async def all_signatures(failures: int) -> dict[str, list[str]]:
    """Return the signatures of so many failures of each bug."""
    async with ProcessManager() as processes, Nursery(processes) as nursery:
        examples = await examples_of(nursery, failures)
        return {
            name: [await signature_of(nursery, name, index) for index in indexes] for name, indexes in examples.items()
        }


def pairs(number: int) -> int:
    return number * (number - 1) // 2


def precision_and_recall(found: Mapping[str, Sequence[str]]) -> tuple[float, float]:
    """Return both for signatures by bug."""
    one_bug = sum(pairs(len(marks)) for marks in found.values())
    one_mark = sum(map(pairs, Counter(mark for marks in found.values() for mark in marks).values()))
    both = sum(pairs(equal) for marks in found.values() for equal in Counter(marks).values())
    return both / one_mark, both / one_bug


def detail(found: Mapping[str, Sequence[str]]) -> str:
    """Return which bugs are split, and which are merged."""
    split = [f"{name} into {len(set(marks))}" for name, marks in found.items() if len(set(marks)) > 1]
    sharing: dict[str, set[str]] = defaultdict(set)
    for name, marks in found.items():
        for mark in marks:
            sharing[mark].add(name)
    merged = {" and ".join(sorted(names)) for names in sharing.values() if len(names) > 1}
    return f"split: {', '.join(split) or 'none'}; merged: {', '.join(sorted(merged)) or 'none'}"


def main() -> None:
    failures = int(sys.argv[sys.argv.index("--failures") + 1]) if "--failures" in sys.argv else FAILURES
    found = asyncio.run(all_signatures(failures))
    precision, recall = precision_and_recall(found)
    what = f"of signatures, {len(found)} planted bugs x {failures} failures"
    bar = f">= {BAR}"
    report(
        "signatures",
        [
            Row(f"pairwise precision {what}", f"{precision:.3f}", bar, precision >= BAR, detail(found)),
            Row(f"pairwise recall {what}", f"{recall:.3f}", bar, recall >= BAR),
        ],
    )
    if "--show" in sys.argv:
        for name, marks in found.items():
            print(f"\n{name}")
            for mark, equal in Counter(marks).most_common():
                print(f"  {equal:3} {mark}")


if __name__ == "__main__":
    main()
