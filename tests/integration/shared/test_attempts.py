"""Every arrow of a chunk's life (store/lua/prelude.lua), its repetition, and who is fenced off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from store_harness import LONG_S, SHORT_S, Held, StoreHarness, call_payload, fuzz_payload, wait_until

from fuzzfarm_shared.arq_queue import IN_PROGRESS_PREFIX
from fuzzfarm_shared.keys import AttemptPhase, ChunkKind, Lane, Part
from fuzzfarm_shared.outcomes import BatchState
from fuzzfarm_shared.schedule import Priority, StopReason
from fuzzfarm_shared.store import Claim, Commit, Refused, Suspects, TakeOver
from fuzzfarm_shared.store.attempts import renew_arguments

Drive = Callable[[Any], None]


async def freed_by(store: StoreHarness, worker: str = "reaper", lease_s: float = SHORT_S) -> None:
    """Wait until a take-over has freed one chunk, on a farm where leases take this long."""

    async def freed() -> bool:
        return (await store.worker(worker, lease_s).take_over(b"report", 60.0)).freed == 1

    await wait_until(freed)


def test_a_claim_moves_a_chunk_from_arqs_queue_into_the_leases(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 4), seal=True)
        (attempt,) = await store.waiting()
        claim = (await store.take(store.worker())).claim
        assert (claim.id, claim.start, claim.stop, claim.attempt, claim.deaths) == (attempt, 0, 4, 1, 0)
        assert (claim.kind, claim.stop_reason, claim.given_up, claim.commits, claim.lane) == (
            ChunkKind.UNITS,
            None,
            False,
            0,
            Lane.SLOTS,
        )
        assert claim.submit_id == store.submit_id
        assert await store.waiting() == []
        assert not any(name.startswith("arq:") for name in await store.names())
        assert await store.client.zrange(store.settings.keys.leases, 0, -1) == [str(attempt).encode()]

    drive(steps)


def test_a_claim_may_be_repeated_by_its_worker_only(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 4), seal=True)
        chunk = await store.take(store.worker())
        await store.commit(chunk, [0, 1])
        again = await store.worker().claim(chunk.claim.id)
        assert isinstance(again, Claim)
        assert (list(again.done.missing(0, 4)), again.commits, again.attempt) == ([2, 3], 1, 1)
        assert await store.worker("w2").claim(chunk.claim.id) is None

    drive(steps)


def test_a_commit_that_is_repeated_records_nothing_more(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 4))
        chunk = await store.take(store.worker())
        for units, final in ([0, 1], False), ([2, 3], True):
            commit = store.commit_of(chunk, units, failed=1)
            assert commit.final == final
            for _ in range(3):
                reply = await chunk.store.commit(chunk.claim.id, commit)
                assert (reply.fenced, reply.stop_reason) == (False, None)
        status = await store.status()
        assert (status.succeeded, status.failed, status.pending, status.late_duplicates) == (2, 2, 0, 0)
        assert await store.outcome_keys() == ["0", "1", "2", "3"]

    drive(steps)


def test_a_batch_ends_when_nothing_is_pending_and_not_before_it_is_sealed(drive: Drive) -> None:
    """I2. Seen to fail without `c[5] ~= '1'` in `finish_if_complete` of prelude.lua."""

    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 2))
        await store.commit(await store.take(store.worker()))
        status = await store.status()
        assert (status.state, status.done, status.pending) == (BatchState.SUBMITTING, False, 0)
        assert await store.ends() == 0
        await store.append(1, call_payload(2, 1), seal=True)
        await store.commit(await store.take(store.worker()))
        status = await store.status()
        assert (status.state, status.done, status.succeeded) == (BatchState.DONE, True, 3)
        assert await store.ends() == 1

    drive(steps)


def test_the_last_commit_of_a_batch_may_be_repeated(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 1), seal=True)
        chunk = await store.take(store.worker())
        commit = store.commit_of(chunk, [0])
        replies = [await chunk.store.commit(chunk.claim.id, commit) for _ in range(2)]
        assert [reply.fenced for reply in replies] == [False, False]
        status = await store.status()
        assert (status.state, status.succeeded, status.late_duplicates) == (BatchState.DONE, 1, 0)

    drive(steps)


def test_a_worker_that_was_silent_for_too_long_is_fenced_off_and_counted(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 3), seal=True)
        zombie = await store.take(store.worker("zombie", SHORT_S))
        await store.commit(zombie, [0])
        await freed_by(store)
        assert (await store.commit(zombie, [1, 2])).fenced
        assert not await zombie.store.hand_back_rest(zombie.claim.id, zombie.done, 0, 1, 3)
        assert not await zombie.store.hand_back_all(zombie.claim.id, zombie.done)
        assert await zombie.store.claim(zombie.claim.id) is None
        status = await store.status()
        assert (status.completed, status.late_duplicates) == (1, 2)

        heir = await store.take(store.worker("heir"))
        assert (heir.claim.attempt, heir.claim.deaths, heir.missing, heir.claim.commits) == (2, 1, [1, 2], 0)
        assert not (await store.commit(heir)).fenced
        assert await store.outcome_keys() == ["0", "1", "2"]
        assert (await store.commit(zombie, [])).fenced
        assert (await store.status()).done

    drive(steps)


def test_every_death_of_a_holder_is_counted(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 1), seal=True)
        for deaths in range(4):
            chunk = await store.take(store.worker(f"w{deaths}", SHORT_S))
            assert (chunk.claim.deaths, chunk.claim.attempt) == (deaths, deaths + 1)
            await freed_by(store)

    drive(steps)


async def running(store: StoreHarness, worker: str) -> Held:
    """Return what waits, taken by a worker that runs its examples and is about to die."""
    chunk = await store.take(store.worker(worker, SHORT_S))
    assert await chunk.store.enter(chunk.claim.id, AttemptPhase.RUNNING)
    return chunk


def test_a_recorder_tells_of_the_last_death_once_before_or_after_the_lease_ends(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 100), seal=True)
        first = await running(store, "w1")
        assert (first.claim.unrecorded, first.claim.suspects) == (0, None)
        for _ in range(2):
            assert await store.worker().suspect(first.claim.id, 10, 20)
        await freed_by(store)
        assert await store.worker().suspect(first.claim.id, 30, 40)  # told already
        second = await running(store, "w2")
        claim = second.claim
        assert (claim.deaths, claim.unrecorded, claim.suspects) == (1, 0, Suspects(10, 20, 1))
        await freed_by(store)
        for _ in range(2):
            assert await store.worker().suspect(second.claim.id, 15, 30)
        third = await running(store, "w3")
        claim = third.claim
        assert (claim.deaths, claim.unrecorded, claim.suspects) == (2, 0, Suspects(15, 20, 2))
        await freed_by(store)
        fourth = await running(store, "w4")
        claim = fourth.claim
        assert (claim.deaths, claim.unrecorded, claim.suspects) == (3, 1, Suspects(15, 20, 2, newest=False))
        assert await store.worker().suspect(third.claim.id, 15, 15)  # late: the next attempt runs already
        assert not await store.worker().suspect(second.claim.id, 30, 30)
        await freed_by(store)
        fifth = await running(store, "w5")
        claim = fifth.claim
        assert (claim.deaths, claim.unrecorded, claim.suspects) == (4, 1, Suspects(15, 15, 3, newest=False))
        assert await store.worker().suspect(fifth.claim.id, 50, 50)
        await freed_by(store)
        claim = (await store.take(store.worker("w6"))).claim
        assert (claim.deaths, claim.unrecorded, claim.suspects) == (5, 1, Suspects(50, 50, 1))

    drive(steps)


def test_deaths_are_not_held_against_what_was_not_done_yet_when_some_of_it_was(drive: Drive) -> None:
    """Seen to fail where only `d` is cut back (commit.lua): each hand-back blames another example."""

    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 100), seal=True)
        for deaths in range(4):
            await running(store, f"w{deaths}")
            await freed_by(store)
        holder = await store.take(store.worker())
        assert (holder.claim.deaths, holder.claim.unrecorded) == (4, 4)
        await store.commit(holder, [0])
        await holder.store.hand_back_all(holder.claim.id, holder.done)
        claim = (await store.take(store.worker())).claim
        assert (claim.deaths, claim.unrecorded) == (2, 2)

    drive(steps)


RESTS = {
    "all of it is": (True, (10, 40), (2, 2, None)),
    "all of it is, and some of it was told": (True, (10, 70), (2, 2, Suspects(10, 70, 1, newest=False))),
    "none of it is": (False, (10, 40), (0, 0, None)),
    "some of it was told": (False, (10, 70), (2, 0, Suspects(10, 70, 1, newest=False))),
}


@pytest.mark.parametrize(("suspected", "told", "expected"), RESTS.values(), ids=RESTS)
def test_a_rest_is_suspected_where_that_is_said_and_of_what_recorders_told(
    drive: Drive, suspected: bool, told: tuple[int, int], expected: tuple[int, int, Suspects | None]
) -> None:
    """Seen to fail where `x` is dropped with `suspected` (hand_back.lua): a known killer kills twice more."""

    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 100), seal=True)
        for deaths in range(4):
            chunk = await running(store, f"w{deaths}")
            if deaths == 0:
                assert await store.worker().suspect(chunk.claim.id, *told)
            await freed_by(store)
        holder = await store.take(store.worker())
        await holder.store.hand_back_rest(holder.claim.id, holder.done, 0, 50, 100, suspected=suspected)
        claim = (await store.take(store.worker())).claim
        assert (claim.deaths, claim.unrecorded, claim.suspects) == expected

    drive(steps)


def test_what_was_told_too_late_counts_once(drive: Drive) -> None:
    """Seen to fail where the late word leaves `o` (suspect.lua): there are -1 unrecorded deaths then."""

    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 100), seal=True)
        first = await running(store, "w1")
        await freed_by(store)
        assert await store.worker().suspect(first.claim.id, 10, 10)
        second = await running(store, "w2")
        assert await store.worker().suspect(second.claim.id, 10, 12)
        await freed_by(store)
        assert not await store.worker().suspect(first.claim.id, 10, 10)
        claim = (await store.take(store.worker())).claim
        assert (claim.deaths, claim.unrecorded, claim.suspects) == (2, 0, Suspects(10, 10, 2))

    drive(steps)


def test_a_shard_is_suspected_only_of_what_it_did_when_it_is_tried_again(drive: Drive) -> None:
    """Seen to fail where a shard that waits or loads counts as running (take_over.lua)."""

    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 100), seal=True)
        told = []
        phases = [
            None,
            None,
            AttemptPhase.LOADING,
            None,
            AttemptPhase.LOADING,
            AttemptPhase.RUNNING,
            AttemptPhase.LOADING,
        ]
        for number, phase in enumerate(phases):
            chunk = await store.take(store.worker(f"w{number}", SHORT_S))
            if phase is AttemptPhase.RUNNING:
                assert await chunk.store.enter(chunk.claim.id, AttemptPhase.LOADING)
            for _ in range(2 if phase else 0):
                assert phase is not None
                assert await chunk.store.enter(chunk.claim.id, phase)
            await freed_by(store)
            if number and phase is not AttemptPhase.RUNNING:
                assert not await store.worker().suspect(chunk.claim.id, 1, 1)  # nothing ran
            assert phase is None or not await chunk.store.enter(chunk.claim.id, phase)
            claim = (await store.take(store.worker("looking"))).claim
            told.append((claim.unrecorded, claim.loading_deaths))
            await chunk.store.hand_back_all(claim.id, claim.done)
        assert claim.deaths == len(phases)
        assert told == [(1, 0), (1, 0), (1, 1), (1, 1), (1, 2), (2, 0), (2, 1)]

    drive(steps)


def test_deaths_while_a_target_is_loaded_count_for_all_shards_of_the_operation_until_one_of_them_has_it(
    drive: Drive,
) -> None:
    """Seen to fail where each shard counts for itself: an operation in many shards kills as many times more workers."""

    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 100), seal=True)
        whole = await store.take(store.worker())
        await whole.store.hand_back_rest(whole.claim.id, whole.done, 0, 50, 100)
        await whole.store.hand_back_all(whole.claim.id, whole.done)
        shards, told = set(), []
        for phase in (*[AttemptPhase.LOADING] * 3, AttemptPhase.RUNNING, AttemptPhase.LOADING):
            chunk = await store.take(store.worker("w", SHORT_S))
            shards.add(chunk.claim.start)
            told.append(chunk.claim.loading_deaths)
            assert await chunk.store.enter(chunk.claim.id, phase)
            await freed_by(store)
        assert told == [0, 1, 2, 3, 0]
        assert shards == {0, 50}

    drive(steps)


def test_shards_of_one_operation_that_lose_their_lease_together_count_as_one_death(drive: Drive) -> None:
    """Seen to fail where each shard counts (take_over.lua): one host that dies gives an operation up."""

    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 100), seal=True)
        whole = await store.take(store.worker())
        await whole.store.hand_back_rest(whole.claim.id, whole.done, 0, 50, 100)
        await whole.store.hand_back_all(whole.claim.id, whole.done)
        for _ in range(2):
            chunk = await store.take(store.worker("w", SHORT_S))
            assert await chunk.store.enter(chunk.claim.id, AttemptPhase.LOADING)
            await freed_by(store, lease_s=LONG_S)
        assert (await store.take(store.worker())).claim.loading_deaths == 1

    drive(steps)


def test_examples_that_were_blamed_are_counted_in_all_parts_of_a_shard(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 100), seal=True)
        holder = await store.take(store.worker())
        for units in ([0], [1, 2]):
            commit = replace(store.commit_of(holder, units), blamed=1)
            for _ in range(2):
                await holder.store.commit(holder.claim.id, commit)
        await holder.store.hand_back_rest(holder.claim.id, holder.done, 0, 50, 100, suspected=False)
        await holder.store.hand_back_all(holder.claim.id, holder.done)
        claims = [(await store.take(store.worker())).claim for _ in range(2)]
        assert {(claim.start, claim.blamed) for claim in claims} == {(0, 2), (50, 2)}

    drive(steps)


@pytest.mark.parametrize("suspected", [True, False])
def test_a_claim_says_how_many_operations_a_worker_that_died_may_have_run_at_once(
    drive: Drive, suspected: bool
) -> None:
    """Seen to fail where the last of them counts (claim.lua), and where the rest does not know it (hand_back.lua)."""

    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 10), seal=True)
        living = await store.take(store.worker("large", at_once=100))
        await living.store.hand_back_all(living.claim.id, living.done)
        told = []
        for at_once in (6, 3):
            chunk = await store.take(store.worker(f"w{at_once}", SHORT_S, at_once))
            told.append(chunk.claim.at_once)
            await freed_by(store)
        holder = await store.take(store.worker("small", at_once=1))
        await holder.store.hand_back_rest(holder.claim.id, holder.done, 0, 5, 10, suspected=suspected)
        rest = await store.take(store.worker())
        assert [*told, holder.claim.at_once, rest.claim.at_once] == [0, 6, 6, 6 if suspected else 0]

    drive(steps)


def test_a_renewed_lease_is_kept_and_a_lost_one_is_told(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 2))
        await store.append(1, call_payload(2, 2))
        kept, lost = [await store.take(store.worker("w", SHORT_S)) for _ in range(2)]
        renewed = await store.server.run("renew", *renew_arguments(LONG_S, [kept.claim.id]))
        assert renewed == [b""]
        await freed_by(store)
        for _ in range(2):
            answer = await store.server.run("renew", *renew_arguments(LONG_S, [kept.claim.id, lost.claim.id]))
            assert answer == [b"", b"lost"]
        await store.cancel()
        assert await store.server.run("renew", *renew_arguments(LONG_S, [kept.claim.id])) == [b"cancelled"]
        assert not (await store.commit(kept)).fenced

    drive(steps)


def test_a_chunk_that_ended_with_its_last_commit_is_not_told_to_be_lost(drive: Drive) -> None:
    """Seen to fail where `renew.lua` asks for the lease only: a renewal on its way says that another worker has it."""

    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 2))
        await store.append(1, call_payload(2, 2), seal=True)
        for _ in ("one of two", "the last of the batch"):
            chunk = await store.take(store.worker())
            await store.commit(chunk)
            assert await store.server.run("renew", *renew_arguments(LONG_S, [chunk.claim.id])) == [b""]

    drive(steps)


def test_an_unstarted_rest_becomes_a_chunk_of_its_own_once(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 10), seal=True)
        chunk = await store.take(store.worker())
        await store.commit(chunk, [0, 1, 8])
        for _ in range(2):
            assert await chunk.store.hand_back_rest(chunk.claim.id, chunk.done, 0, 6, 10)
        chunk.stop = 6
        (attempt,) = await store.waiting()
        rest = await store.take(store.worker("w2"), attempt)
        assert (rest.claim.start, rest.claim.stop, rest.missing) == (6, 10, [6, 7, 9])
        assert (rest.claim.attempt, rest.claim.deaths) == (1, 0)
        assert chunk.missing == [2, 3, 4, 5]
        await store.commit(rest)
        await store.commit(chunk)
        assert (await store.status()).done
        assert sorted(await store.outcome_keys(), key=int) == list(map(str, range(10)))

    drive(steps)


def test_what_is_taken_over_after_a_split_is_only_the_part_that_was_kept(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 10), seal=True)
        chunk = await store.take(store.worker("w", SHORT_S))
        await chunk.store.hand_back_rest(chunk.claim.id, chunk.done, 0, 4, 10)
        (rest,) = await store.waiting()
        await freed_by(store)
        heirs = {attempt.chunk: await store.take(store.worker("heir"), attempt) for attempt in await store.waiting()}
        assert heirs[chunk.claim.id.chunk].missing == [0, 1, 2, 3]
        assert heirs[rest.chunk].missing == [4, 5, 6, 7, 8, 9]
        assert heirs[rest.chunk].claim.deaths == 0

    drive(steps)


def test_a_chunk_that_is_given_back_whole_waits_again_without_counting_a_death(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 4), seal=True)
        chunk = await store.take(store.worker())
        await store.commit(chunk, [0, 1])
        assert await chunk.store.hand_back_all(chunk.claim.id, chunk.done)
        assert not await chunk.store.hand_back_all(chunk.claim.id, chunk.done)
        assert (await store.commit(chunk, [2])).fenced
        again = await store.take(store.worker("w2"))
        assert (again.missing, again.claim.deaths, again.claim.attempt, again.claim.commits) == ([2, 3], 0, 1, 0)
        assert again.claim.id.token != chunk.claim.id.token

    drive(steps)


async def alive(store: StoreHarness, *names: str) -> None:
    for name in names:
        await store.worker(name).take_over(b"report", 60.0)


async def refuse(store: StoreHarness, name: str) -> bool:
    chunk = await store.take(store.worker(name))
    return await chunk.store.refuse(chunk.claim.id, chunk.done)


def test_a_refused_chunk_goes_to_others_until_three_have_refused_it(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await alive(store, "a", "b", "c", "d", "e")
        await store.append(0, call_payload(0, 2), seal=True)
        assert not await refuse(store, "a")
        (attempt,) = await store.waiting()
        assert isinstance(await store.claim(store.worker("a"), attempt), Refused)
        assert not await refuse(store, "b")
        chunk = await store.take(store.worker("c"))
        for _ in range(2):
            assert await chunk.store.refuse(chunk.claim.id, chunk.done)
        await store.commit(chunk, failed=2)
        assert (await store.status()).failed == 2

    drive(steps)


def test_a_chunk_is_settled_when_all_that_live_have_refused_it(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await alive(store, "a", "b")
        await store.append(0, call_payload(0, 2), seal=True)
        assert not await refuse(store, "a")
        assert await refuse(store, "b")

    drive(steps)


def test_a_worker_that_never_saw_a_chunk_gets_it_before_it_is_settled(drive: Drive) -> None:
    """As many refusals as live workers are not enough: those who refused may have gone."""

    async def steps(store: StoreHarness) -> None:
        await alive(store, "gone", "b", "c")
        await store.append(0, call_payload(0, 2), seal=True)
        assert not await refuse(store, "gone")
        await store.client.zrem(store.settings.keys.workers, "gone")
        assert not await refuse(store, "b")
        assert await refuse(store, "c")

    drive(steps)


def test_a_chunk_whose_other_workers_have_gone_is_settled_by_the_one_that_refused_it(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await alive(store, "a", "gone")
        await store.append(0, call_payload(0, 2), seal=True)
        assert not await refuse(store, "a")
        await store.client.zrem(store.settings.keys.workers, "gone")
        assert await refuse(store, "a")

    drive(steps)


def test_cancel_records_what_waits_and_tells_who_runs(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 3))
        await store.append(1, call_payload(3, 3))
        chunk = await store.take(store.worker())
        assert (await store.commit(chunk, [0])).stop_reason is None
        await store.cancel()
        await store.cancel()
        status = await store.status()
        assert (status.state, status.done, status.succeeded, status.cancelled) == (BatchState.CANCELLED, False, 1, 3)
        assert (await store.commit(chunk, [1])).stop_reason is StopReason.CANCELLED
        await store.commit(chunk, [2])
        status = await store.status()
        assert (status.done, status.succeeded, status.cancelled) == (True, 3, 3)
        assert await store.worker().cancel(store.batch, b"") == []
        assert await store.worker().cancel("no-such-batch", b"") is None

    drive(steps)


def test_cancelled_chunks_leave_no_one_waiting_for_room(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 1), queue_limit=1)
        mine, store.batch = store.batch, f"{store.batch}-other"
        assert (await store.append(0, call_payload(0, 1), queue_limit=1)).status == "wait"
        await store.worker("canceller").cancel(mine, b"")
        assert (await store.append(0, call_payload(0, 1), queue_limit=1)).status == "ok"
        assert await store.client.llen(store.settings.keys.wake(Lane.SLOTS, Priority.NORMAL)) == 1  # type: ignore[misc]

    drive(steps)


async def pop(store: StoreHarness, lane: Lane = Lane.SLOTS) -> str:
    """Take a job off the wake list as a worker does that dies right after."""
    raw = await store.client.lpop(store.settings.keys.wake(lane, Priority.NORMAL))  # type: ignore[misc]
    return str(raw.decode())


async def grow_old(store: StoreHarness) -> None:
    """Let three seconds pass for everything in arq's queue."""
    queue = store.settings.keys.queue
    for raw in await store.client.zrange(queue, 0, -1):
        await store.client.zincrby(queue, -3_000, raw)


def test_a_job_whose_worker_died_before_its_claim_is_woken(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 1), seal=True)
        dropped = await pop(store)
        assert (await store.worker().take_over(b"", 60.0)).woken == 0  # it may yet be claimed
        await grow_old(store)
        assert (await store.worker().take_over(b"", 60.0)).woken == 0  # it may be on its way to arq
        await store.client.pexpire(f"{IN_PROGRESS_PREFIX}{dropped}", 7_900)
        assert (await store.worker().take_over(b"", 60.0)).woken == 1
        woken = await pop(store)
        assert woken != dropped
        assert [str(attempt) for attempt in await store.waiting()] == [woken]
        assert (await store.take(store.worker())).claim.deaths == 0

    drive(steps)


def test_a_job_that_arq_has_just_marked_is_left_alone(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 1), seal=True)
        attempt = await pop(store)
        await grow_old(store)
        await store.client.set(f"{IN_PROGRESS_PREFIX}{attempt}", 1, px=10_000)
        assert (await store.worker().take_over(b"", 60.0)).woken == 0
        await store.client.pexpire(f"{IN_PROGRESS_PREFIX}{attempt}", 7_900)
        assert (await store.worker().take_over(b"", 60.0)).woken == 1

    drive(steps)


def test_a_job_that_waits_its_turn_is_not_woken_twice(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 1), seal=True)
        await grow_old(store)
        assert await store.worker().take_over(b"", 60.0) == TakeOver(0, 0, 1, 0, ())

    drive(steps)


def test_a_dropped_job_is_woken_behind_any_number_of_another_lane(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        for index in range(40):
            await store.append(index, fuzz_payload(index, 10))
        await store.append(40, call_payload(40, 1), seal=True)
        dropped = await pop(store)
        await grow_old(store)
        await store.client.set(f"{IN_PROGRESS_PREFIX}{dropped}", 1, px=7_900)
        assert (await store.worker().take_over(b"", 60.0)).woken == 1

    drive(steps)


def test_what_is_left_of_an_evicted_batch_harms_nobody(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 1))
        await store.append(1, call_payload(1, 1))
        chunk = await store.take(store.worker("w", SHORT_S))
        (attempt,) = await store.waiting()
        await grow_old(store)
        await store.client.delete(store.settings.keys.batch(store.batch, Part.META))

        async def gone() -> bool:
            await store.worker().take_over(b"", 60.0)
            return not await store.client.exists(store.settings.keys.leases)

        await wait_until(gone)
        assert await store.worker().claim(attempt) is None
        assert (await store.commit(chunk)).fenced
        assert await store.waiting() == []

    drive(steps)


async def run_shard(store: StoreHarness, chunk: Held, split: int) -> None:
    await chunk.store.hand_back_rest(chunk.claim.id, chunk.done, chunk.claim.start, split, chunk.stop)
    chunk.stop = split


def test_the_last_shard_of_a_fuzz_operation_queues_its_merge(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 100), seal=True)
        first = await store.take(store.worker())
        assert first.claim.lane is Lane.FUZZ
        await run_shard(store, first, 40)
        second = await store.take(store.worker("w2"))
        commit = store.commit_of(second, range(40, 70))
        for _ in range(2):
            await second.store.commit(second.claim.id, commit)
        assert await store.immortal() == set()
        await store.commit(first)
        assert await store.waiting() == []
        status = await store.status()
        assert (status.examples_done, status.completed, status.total) == (70, 0, 1)
        commit = store.commit_of(second, range(70, 100))
        for _ in range(2):
            await second.store.commit(second.claim.id, commit)

        merge = await store.take(store.worker())
        assert (merge.claim.kind, merge.claim.lane, len(merge.claim.enclosed)) == (ChunkKind.MERGE, Lane.SLOTS, 3)
        commit = store.commit_of(merge, [0])
        for _ in range(2):
            assert not (await merge.store.commit(merge.claim.id, commit)).fenced
        status = await store.status()
        assert (status.done, status.succeeded, status.examples_done, status.late_duplicates) == (True, 1, 100, 0)
        assert await store.outcome_keys() == ["0"]

    drive(steps)


def test_a_merge_whose_worker_died_is_done_by_another(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        await store.commit(await store.take(store.worker()))
        zombie = await store.take(store.worker("zombie", SHORT_S))
        await freed_by(store)
        heir = await store.take(store.worker("heir"))
        assert (heir.claim.kind, len(heir.claim.enclosed)) == (ChunkKind.MERGE, 1)
        await store.commit(heir)
        assert (await store.commit(zombie, [0])).fenced
        assert await store.outcome_keys() == ["0"]

    drive(steps)


def test_other_shards_are_told_when_their_operation_has_failed(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        first = await store.take(store.worker())
        await run_shard(store, first, 5)
        commit = store.commit_of(first, first.missing)
        given_up = Commit(commit.number, commit.envelope, units=5, final=True, partial=True, given_up=True)
        await first.store.commit(first.claim.id, given_up)
        second = await store.take(store.worker())
        assert second.claim.given_up
        await store.commit(second)
        await store.commit(await store.take(store.worker()))
        assert (await store.status()).done

    drive(steps)


def test_nothing_but_results_is_left_of_a_batch_that_is_done(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 3, ["a", "b", "c"]))
        await store.append(1, fuzz_payload(3, 10), seal=True)
        while await store.waiting():
            await store.commit(await store.take(store.worker()))
        assert (await store.status()).done
        keys = store.settings.keys
        results = {keys.batch(store.batch, part) for part in (Part.META, Part.OUTCOMES, Part.BOUNDARIES)}
        assert await store.names() == results | {keys.batches}
        for name in results:
            assert store.settings.result_ttl_s - 60 < await store.client.ttl(name) <= store.settings.result_ttl_s

    drive(steps)


def test_a_script_that_the_server_has_forgotten_is_sent_again(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, call_payload(0, 1), seal=True)
        await store.client.script_flush()
        await store.commit(await store.take(store.worker()))
        assert (await store.status()).done

    drive(steps)
