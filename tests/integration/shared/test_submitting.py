"""The submit script: each payload once, whoever sends it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from store_harness import StoreHarness, call_payload

from fuzzfarm_shared.errors import BatchNotFoundError
from fuzzfarm_shared.keys import Lane, Part
from fuzzfarm_shared.outcomes import BatchState
from fuzzfarm_shared.schedule import Priority, StopReason

Drive = Callable[[Any], None]


def test_a_payload_that_is_sent_again_is_accepted_once(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        for _ in range(3):
            accepted = await store.append(0, call_payload(0, 4))
            assert (accepted.status, accepted.payloads, accepted.operations, accepted.depth) == ("ok", 1, 4, 1)
        assert len(await store.waiting()) == 1
        for _ in range(2):
            accepted = await store.append(1, call_payload(4, 2), seal=True)
            assert (accepted.status, accepted.operations, accepted.sealed) == ("ok", 6, True)
        assert (await store.status()).state is BatchState.RUNNING

    drive(steps)


def test_other_content_at_the_same_place_is_a_conflict_and_changes_nothing(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 4))
        assert (await store.append(0, call_payload(0, 3))).status == "conflict"
        assert (await store.status()).total == 4

    drive(steps)


def test_a_payload_behind_a_gap_is_a_conflict(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 4))
        assert (await store.append(2, call_payload(8, 4))).status == "conflict"
        assert (await store.status()).total == 4

    drive(steps)


def test_nothing_is_added_behind_the_end(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 4), seal=True)
        assert (await store.append(1, call_payload(4, 4))).status == "conflict"
        assert (await store.submissions.seal(store.batch, store.submit_id, 2)).status == "conflict"
        assert (await store.append(0, call_payload(0, 4), seal=True)).status == "ok"

    drive(steps)


def test_a_payload_of_another_submit_is_a_conflict(drive: Drive) -> None:
    """Its signature is bound to the submit, so no worker could open it."""

    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 4))
        kept, store.submit_id = store.submit_id, "submit-2"
        accepted = await store.append(1, call_payload(4, 4), seal=True)
        assert (accepted.status, accepted.submit_id) == ("conflict", kept)
        status = await store.status()
        assert (status.total, status.sealed) == (4, False)

    drive(steps)


def test_opening_a_batch_again_tells_how_far_it_got(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        opened = await store.submissions.open(store.batch)
        store.submit_id = opened.submit_id
        payload = call_payload(0, 4)
        await store.append(0, payload)
        again = await store.submissions.open(store.batch)
        assert (again.submit_id, again.payloads, again.operations) == (opened.submit_id, 1, 4)
        assert await store.submissions.boundaries(store.batch) == [(4, payload.boundary)]
        assert (await store.status()).state is BatchState.SUBMITTING

    drive(steps)


def test_a_key_that_came_before_is_found_and_nothing_is_added(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 2, ["a", "b"]))
        accepted = await store.append(1, call_payload(2, 3, ["c", "d", "b"]))
        assert (accepted.status, accepted.duplicate) == ("duplicate", 2)
        assert (await store.status()).total == 2
        # The keys of the refused payload are not remembered.
        assert (await store.append(1, call_payload(2, 2, ["c", "d"]))).status == "ok"

    drive(steps)


def test_a_duplicate_is_found_among_thousands_of_keys(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 2_500, [f"k{number}" for number in range(2_500)]))
        names = [f"n{number}" for number in range(2_500)]
        names[2_345] = "k1999"
        assert (await store.append(1, call_payload(2_500, 2_500, names))).duplicate == 2_345

    drive(steps)


def test_a_full_queue_says_wait_and_takes_nothing(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        for index in range(2):
            assert (await store.append(index, call_payload(index, 1), queue_limit=2)).status == "ok"
        accepted = await store.append(2, call_payload(2, 1), queue_limit=2)
        assert (accepted.status, accepted.payloads, accepted.depth) == ("wait", 2, 2)
        await store.take(store.worker())
        assert (await store.append(2, call_payload(2, 1), queue_limit=2)).status == "ok"

    drive(steps)


def test_a_batch_that_was_lost_while_it_was_submitted_says_so(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        with pytest.raises(BatchNotFoundError):
            await store.append(1, call_payload(1, 1))
        with pytest.raises(BatchNotFoundError):
            await store.submissions.seal(store.batch, store.submit_id, 0)
        with pytest.raises(BatchNotFoundError):
            await store.status()
        assert await store.names() == set()

    drive(steps)


def test_an_empty_batch_is_done_when_it_is_sealed(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        store.submit_id = (await store.submissions.open(store.batch)).submit_id
        assert not (await store.status()).done
        await store.submissions.seal(store.batch, store.submit_id, 0)
        status = await store.status()
        assert (status.done, status.state, status.total) == (True, BatchState.DONE, 0)

    drive(steps)


def test_a_payload_for_a_cancelled_batch_is_dropped_without_an_error(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 2))
        await store.cancel()
        accepted = await store.append(1, call_payload(2, 2), seal=True)
        assert (accepted.status, accepted.stop_reason, accepted.operations) == ("ok", StopReason.CANCELLED, 2)
        assert (await store.status()).cancelled == 2

    drive(steps)


def test_names_of_expired_batches_do_not_pile_up(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        keys, batch = store.settings.keys, store.batch
        for number in range(200):
            await store.submissions.open(f"{batch}-{number}")
            await store.client.delete(keys.batch(f"{batch}-{number}", Part.META))
        assert await store.client.zcard(keys.batches) < 40
        await store.submissions.open(batch)
        assert [status.key for status in await store.readings.batches(10)] == [batch]
        assert await store.client.zcard(keys.batches) < 40

    drive(steps)


def test_every_key_of_a_batch_being_submitted_expires(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 1))
        await store.append(1, call_payload(1, 1, ["named"]))
        chunks = [await store.take(store.worker()) for _ in range(2)]
        assert await store.immortal() == set()
        for chunk in chunks:
            await store.commit(chunk)
            assert await store.immortal() == set()
        await store.append(2, call_payload(2, 1))
        assert await store.immortal() == set()

    drive(steps)


def test_arq_finds_the_job_of_a_waiting_chunk_and_a_worker_is_woken(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        from arq.constants import job_key_prefix
        from arq.jobs import deserialize_job_raw

        from fuzzfarm_shared.arq_queue import FUNCTION, deserialize_job

        await store.append(0, call_payload(0, 1))
        (attempt,) = await store.waiting()
        raw = await store.client.get(f"{job_key_prefix}{attempt}")
        function, *_ = deserialize_job_raw(raw, deserializer=deserialize_job)
        assert function == FUNCTION
        assert await store.client.lrange(store.settings.keys.wake(Lane.SLOTS, Priority.NORMAL), 0, -1) == [
            str(attempt).encode()
        ]  # type: ignore[misc]
        score = await store.client.zscore(store.settings.keys.queue, str(attempt))
        seconds, _ = await store.client.time()
        assert 0 < score < (seconds - 60) * 1000

    drive(steps)
