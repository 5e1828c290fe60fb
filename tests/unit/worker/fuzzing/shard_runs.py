"""Running shards in tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_shared.outcomes import Finding, FuzzResult
from fuzzfarm_worker.fuzzing import FuzzChildren, ShardProgress
from fuzzfarm_worker.fuzzing.nursery import Nursery
from fuzzfarm_worker.fuzzing.shrinking import shrink
from fuzzfarm_worker.fuzzing.words import as_told
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


def found_by(fuzz: FuzzOperation, examples: int = 120) -> Finding:
    """Return the one finding of the first examples."""
    [finding] = run(fuzz, 0, examples).findings
    return finding


def made_small(fuzz: FuzzOperation, finding: Finding, *, budget_s: float = 60.0, **options: Any) -> Finding:
    """Return the finding as shrinking leaves it, which a busy machine does not end early."""

    async def main() -> Finding:
        async with ProcessManager() as processes, Nursery(processes) as nursery:
            return await shrink(nursery, as_told(fuzz), finding, budget_s=budget_s, **options)

    return asyncio.run(main())


def smallest(fuzz: FuzzOperation, examples: int = 300) -> Finding:
    """Return the one finding of the first examples, made small."""
    return made_small(fuzz, found_by(fuzz, examples))
