"""Findings on the farm: exactly what the outcomes of all batches say, whatever dies on the way."""

from __future__ import annotations

import asyncio
from typing import Any

from fuzzfarm import Batch, Farm, Finding, FuzzOperation, SyncFarm
from fuzzfarm_shared.merging import merge

WAIT_S = 60.0
TARGET = "farm_targets:fuzz_small"


async def findings_of(batch: Batch) -> list[Finding]:
    aggregate = await batch.wait(WAIT_S)
    assert not aggregate.errors
    return merge(aggregate.results.values()).findings


async def until_examples(batch: Batch, number: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await batch.status()).examples_done < number:
            await asyncio.sleep(0.01)


def test_the_farm_knows_what_the_outcomes_say_also_after_a_worker_was_killed(
    start_worker: Any, farm_settings: Any
) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            victim = start_worker(name="pear", commit_every_s=0.05)
            batch = await farm.submit([FuzzOperation(target=TARGET, examples=20_000)])
            await until_examples(batch, 100)
            start_worker(name="apple", commit_every_s=0.05)
            victim.kill()
            found = await findings_of(batch)
            assert await farm.findings() == await farm.findings(TARGET) == found
            [finding] = found
            assert finding.hosts == ("pear", "apple")
            assert finding.example == "fuzz_small(number=1000)"
            assert (finding.replays, finding.replay_failures, finding.flaky) == (10, 10, False)
            assert await farm.findings("farm_targets:other") == []

    asyncio.run(scenario())


def test_findings_of_two_batches_are_one_and_can_be_forgotten(start_worker: Any, farm_settings: Any) -> None:
    start_worker()
    with SyncFarm.connect(**farm_settings) as farm:
        results = [
            farm.submit([FuzzOperation(target=TARGET, examples=300, seed=seed)]).wait(WAIT_S).results["0"]
            for seed in (1, 2)
        ]
        [finding] = farm.findings(TARGET)
        assert [finding] == merge(results).findings
        assert finding.count == sum(result.findings[0].count for result in results)
        assert farm.findings_named(finding.id[:6]) == [finding]
        assert farm.forget(finding)
        assert farm.findings() == []
