"""Tools as operations of a farm: the worker's processes, its programs and its folders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysed_files import PROGRAM, needs

from fuzzfarm import BatchAggregate, CallOperation, Farm

WAIT_S = 60.0
STRINGS = "fuzzfarm_worker.tools.strings:run_strings_async"


async def aggregate_of(settings: dict[str, Any], *operations: CallOperation) -> BatchAggregate:
    async with Farm.connect(**settings) as farm:
        return await (await farm.submit(operations)).wait(WAIT_S)


@needs("strings")
def test_a_tool_reads_only_in_the_folders_of_its_worker(
    farm_settings: dict[str, Any], start_worker: Callable[..., Any], tmp_path: Path
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file").write_bytes(PROGRAM)
    start_worker(allow_targets="fuzzfarm_worker.tools", allow_commands="strings", allow_roots=str(inside))
    aggregate = asyncio.run(
        aggregate_of(
            farm_settings,
            CallOperation(key="inside", target=STRINGS, args=[str(inside / "file"), 10]),
            CallOperation(key="outside", target=STRINGS, args=[str(outside / "file"), 10]),
            CallOperation(key="child", target=STRINGS, args=[str(inside / "file")], isolation="child"),
            CallOperation(
                key="not allowed",
                target="fuzzfarm_worker.tools.binwalk:run_binwalk_async",
                args=[str(inside / "file")],
            ),
        )
    )
    assert set(aggregate.results) == {"inside"}
    result = aggregate.results["inside"]
    strings = result["strings"] if isinstance(result, dict) else result.strings
    assert strings == ["a printable text"]
    assert "outside of the folders that tools may read here" in aggregate.errors["outside"].message
    assert 'isolation="worker"' in aggregate.errors["child"].message
    assert aggregate.errors["not allowed"].type.endswith("ToolMissingError")
