"""A batch that is stopped while a merge waits: what its shards have found is its outcome, whoever records it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sightings import finding
from store_harness import StoreHarness, fuzz_payload

from fuzzfarm_shared.merging import merge
from fuzzfarm_shared.schedule import StopReason
from fuzzfarm_shared.settling import cancel_order, partial_context, settle_waiting
from fuzzfarm_shared.values import pack

Drive = Callable[[Any], None]


def test_whoever_cancels_merges_what_no_worker_has_merged(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        shard = await store.take(store.worker())
        found = replace(merge([]), examples=10, findings=[finding(target="mod:f")])
        context = partial_context(store.batch, store.submit_id, 0)
        commit = replace(store.commit_of(shard, range(10)), envelope=store.signer.seal(pack(found), context))
        await shard.store.commit(shard.claim.id, commit)

        canceller = store.worker("canceller")
        waiting = await canceller.cancel(store.batch, cancel_order(store.batch, store.submit_id, store.signer))
        assert waiting is not None
        await settle_waiting(canceller, waiting, StopReason.CANCELLED, store.signer, "canceller")
        status = await store.status()
        assert (status.succeeded, status.cancelled, status.failed) == (1, 0, 0)
        values = [value async for _, segment in store.readings.segments(store.batch, "0") for value in segment.values]
        assert [value.findings[0].id for value in values] == ["f1"]

    drive(steps)
