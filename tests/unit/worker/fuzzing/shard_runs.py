"""Running shards in tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import FuzzResult
from fuzzfarm_worker.fuzzing import FuzzChildren, ShardProgress
from fuzzfarm_worker.processes import ProcessManager


def operation(target: str, **fields: Any) -> FuzzOperation:
    return FuzzOperation(key="k", target=target if ":" in target else f"fuzzing_subjects:{target}", **fields)


@asynccontextmanager
async def pool(max_children: int = 1, **options: Any) -> AsyncIterator[FuzzChildren]:
    async with ProcessManager() as processes, FuzzChildren(processes, max_children, **options) as children:
        yield children


async def progress_of(
    children: FuzzChildren, fuzz: FuzzOperation, start: int, stop: int, **options: Any
) -> list[ShardProgress]:
    return [progress async for progress in children.run_shard(fuzz, start, stop, **options)]


def run(fuzz: FuzzOperation, start: int = 0, stop: int = 300, **options: Any) -> FuzzResult:
    async def main() -> FuzzResult:
        async with pool() as children:
            told = await progress_of(children, fuzz, start, stop, **options)
            assert told[-1].next_index == stop
            return merge(progress.result for progress in told)

    return asyncio.run(main())
