"""Examinations of findings: one at a time for each fuzz operation, and all of them before its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from sightings import finding
from store_harness import SHORT_S, Held, StoreHarness, fuzz_payload, wait_until

from fuzzfarm_shared.keys import AttemptId, ChunkKind, Lane, Part
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_shared.settling import settled
from fuzzfarm_shared.store import CommitReply, sighting
from fuzzfarm_shared.store.findings import open_finding

Drive = Callable[[Any], None]
MOST, AT_ONCE = 50, 16
"""Of one operation; see examination.lua."""


async def commit_found(store: StoreHarness, shard: Held, units: Iterable[int], ids: Iterable[str]) -> CommitReply:
    """Commit examples of a shard, and findings that are to be examined."""
    seen = [sighting(finding(id=name, target="mod:f"), "host", store.signer, examine=True) for name in ids]
    commit = replace(store.commit_of(shard, units), findings=seen)
    await shard.store.commit(shard.claim.id, commit)
    return await shard.store.commit(shard.claim.id, commit)  # a repeated one changes nothing


async def examined(store: StoreHarness, waiting: int = 1) -> str:
    """Do the first examination of those that wait, and return the id of its finding."""
    attempts = await store.waiting()
    assert len(attempts) == waiting
    chunk = await store.take(store.worker("examiner"), attempts[0])
    assert (chunk.claim.kind, chunk.claim.lane) == (ChunkKind.EXAMINATION, Lane.FUZZ)
    identifier, envelope = chunk.claim.enclosed
    assert open_finding(envelope, "mod:f", identifier.decode(), store.signer).id == identifier.decode()
    commit = store.commit_of(chunk, [0])
    for _ in range(2):
        await chunk.store.commit(chunk.claim.id, commit)
    return identifier.decode()


async def merged(store: StoreHarness) -> int:
    """Merge what the shards and examinations have recorded, and return how many parts that are."""
    merge = await store.take(store.worker())
    assert merge.claim.kind is ChunkKind.MERGE
    await store.commit(merge)
    status = await store.status()
    assert (status.done, status.succeeded, status.failed, status.late_duplicates) == (True, 1, 0, 0)
    assert await store.outcome_keys() == ["0"]
    assert await store.immortal() == set()
    return len(merge.claim.enclosed)


async def kept_fields(store: StoreHarness) -> set[str]:
    raw = await store.client.hkeys(store.settings.keys.batch(store.batch, Part.PAYLOADS))  # type: ignore[misc]
    return {name.decode() for name in raw if name[:1] in b"ef"}


def test_what_a_shard_found_is_examined_one_after_another_before_the_merge(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        shard = await store.take(store.worker())
        await commit_found(store, shard, range(4), ["b", "a"])
        assert await examined(store) == "b"
        await commit_found(store, shard, range(4, 9), ["c"])
        assert await examined(store) == "a"
        assert await examined(store) == "c"
        assert await store.waiting() == []
        await store.commit(shard)
        assert await merged(store) == 6

    drive(steps)


def test_a_finding_of_several_shards_is_examined_once(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        shard = await store.take(store.worker())
        await commit_found(store, shard, range(4), ["a"])
        assert await examined(store) == "a"
        await commit_found(store, shard, range(4, 6), ["a"])
        assert await store.waiting() == []
        await commit_found(store, shard, range(6, 10), ["a"])
        assert await merged(store) == 4

    drive(steps)


def test_an_operation_waits_for_the_examination_of_what_its_last_commit_tells(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        await commit_found(store, await store.take(store.worker()), range(10), ["a"])
        assert await kept_fields(store) == {"e0", "f0:a"}
        assert await examined(store) == "a"
        assert await kept_fields(store) == {"e0"}
        merge = await store.take(store.worker())
        await store.append(1, fuzz_payload(1, 1), seal=True)  # a refused submit changes nothing: the batch is sealed
        await store.commit(merge)
        assert await kept_fields(store) == set()

    drive(steps)


def test_an_examination_whose_worker_died_is_done_by_another(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        await commit_found(store, await store.take(store.worker()), range(10), ["a"])
        zombie = await store.take(store.worker("zombie", SHORT_S))

        async def freed() -> bool:
            return (await store.worker("reaper").take_over(b"report", 60.0)).freed == 1

        await wait_until(freed)
        assert await examined(store) == "a"
        assert (await store.commit(zombie, [0])).fenced
        assert await merged(store) == 2

    drive(steps)


def test_findings_of_a_cancelled_batch_are_not_examined_any_more(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        await commit_found(store, await store.take(store.worker()), range(10), ["a", "b", "c"])
        running = await store.take(store.worker("examiner"))
        await store.cancel()
        error = OperationError(ErrorKind.CANCELLED, "", "cancelled")
        await running.store.commit(running.claim.id, settled(running.claim, None, error, store.signer))
        assert await merged(store) == 1

    drive(steps)


def test_an_operation_with_too_many_findings_has_some_of_them_examined(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        names = [f"f{number:03}" for number in range(MOST + 5)]
        await commit_found(store, await store.take(store.worker()), range(10), names)
        waiting = [min(AT_ONCE, MOST - number) for number in range(MOST)]
        assert {await examined(store, several) for several in waiting} == set(names[:MOST])
        await merged(store)

    drive(steps)


def test_what_is_left_when_the_search_has_ended_is_examined_at_once(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        shard = await store.take(store.worker())
        await commit_found(store, shard, range(4), ["a", "b", "c"])
        assert len(await store.waiting()) == 1
        await store.commit(shard)
        assert {await examined(store, several) for several in (3, 2, 1)} == {"a", "b", "c"}
        assert await merged(store) == 5

    drive(steps)


def test_the_first_finding_of_an_operation_does_not_wait_behind_others(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10))
        await store.append(1, fuzz_payload(1, 10), seal=True)
        shard = await store.take(store.worker())
        await commit_found(store, shard, range(4), ["a"])
        [list_of_shards] = [name for name in store.settings.keys.wake_lists() if await store.client.exists(name)]
        first = await store.client.lindex(list_of_shards, 0)  # type: ignore[misc]
        claim = (await store.take(store.worker(), AttemptId.parse(first.decode()))).claim
        assert claim.kind is ChunkKind.EXAMINATION

    drive(steps)


def test_what_is_left_of_a_batch_that_lost_its_payloads_expires(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        shard = await store.take(store.worker())
        await store.client.delete(store.settings.keys.batch(store.batch, Part.PAYLOADS))
        await commit_found(store, shard, range(4), ["a"])
        assert await store.immortal() == set()

    drive(steps)


def test_a_search_makes_room_for_an_examination_of_its_own(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        shard = await store.take(store.worker())
        assert not (await shard.store.crowd(shard.claim.id, 0)).others
        await commit_found(store, shard, range(4), ["a"])
        assert (await shard.store.crowd(shard.claim.id, 0)).others

    drive(steps)
