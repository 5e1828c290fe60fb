"""Targets of one module share a zygote, and none of them can end the children of another."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from shard_runs import operation, pool, progress_of

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.outcomes import FuzzResult
from fuzzfarm_worker.fuzzing import FuzzChildren


async def result_of(children: FuzzChildren, target: str, stop: int = 100) -> FuzzResult:
    told = await progress_of(children, operation(f"loading_subjects:{target}"), 0, stop)
    return merge(one.result for one in told)


def test_targets_of_one_module_are_loaded_by_one_zygote() -> None:
    async def main() -> list[str]:
        async with pool(1) as children:
            results = [await result_of(children, target, 1) for target in ("zygote", "same_zygote")]
            assert children.started == 2
            return [result.findings[0].message for result in results]

    one, other = asyncio.run(main())
    assert one == other


@pytest.mark.parametrize(
    ("target", "says"), [("TestEnding.test_never", "exit code 0"), ("TestRaising.test_never", "ValueError: no server")]
)
def test_a_target_that_cannot_be_loaded_leaves_the_children_of_others_alone(target: str, says: str) -> None:
    async def main() -> int:
        async with pool(2) as children:
            shard = children.run_shard(operation("loading_subjects:passes"), 0, 10**9)
            async with aclosing(shard):
                await anext(shard)
                with pytest.raises(TargetError, match=says):
                    await result_of(children, target)
                after = merge([(await anext(shard)).result for _ in range(4)])
            assert after.examples > 0
            assert after.findings == []
            return after.children_replaced

    assert asyncio.run(main()) == 0


def test_a_target_whose_loading_starts_threads_is_loaded_by_each_child() -> None:
    async def main() -> FuzzResult:
        async with pool(1) as children:
            await result_of(children, "passes", 10)
            return await result_of(children, "TestThreads.test_thread")

    [finding] = asyncio.run(main()).findings
    assert int(finding.example.removeprefix("TestThreads.test_thread(number=").removesuffix(")")) >= 1000
