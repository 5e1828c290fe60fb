"""Time limit and retries of operations that were made without: those of their worker's settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzfarm import CallOperation, ErrorKind, Farm, SubprocessJob

WAIT_S = 60.0


def test_what_an_operation_does_not_say_is_said_by_its_worker(
    farm_settings: dict[str, Any], start_worker: Callable[..., Any], tmp_path: Path
) -> None:
    start_worker(timeout_s=0.2, retries=2, retry_delay_s=0.01)
    folder = str(tmp_path)

    def call(key: str, name: str, *args: Any, **options: Any) -> CallOperation:
        return CallOperation(key=key, target=f"farm_targets:{name}", args=list(args), **options)

    operations = [
        call("left", "pause", 60, retries=0),
        call("left in a child", "pause", 60, retries=0, isolation="child"),
        SubprocessJob(key="left of a job", command=["sleep", "60"], retries=0),
        # Given, and given as what they are without: both are the operation's own.
        call("given", "pause", 1.0, timeout_s=30.0),
        call("given as none", "pause", 1.0, timeout_s=None),
        call("tried again", "fail_before", folder, "again", 3),
        call("tried once", "fail_before", folder, "once", 3, retries=0),
        call("tried twice", "fail_before", folder, "twice", 2, retries=1),
    ]

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            aggregate = await (await farm.submit(operations)).wait(WAIT_S)
            many = await farm.submit(CallOperation.many("farm_targets:pause", [60], retries=0))
            assert (await many.wait(WAIT_S)).errors["0"].kind is ErrorKind.TIMEOUT
        kinds = {key: error.kind for key, error in aggregate.errors.items()}
        timeout = ErrorKind.TIMEOUT
        assert kinds == {
            "left": timeout,
            "left in a child": timeout,
            "left of a job": timeout,
            "tried once": ErrorKind.EXCEPTION,
        }
        assert aggregate.results == {"given": None, "given as none": None, "tried again": 3, "tried twice": 2}

    asyncio.run(scenario())
