"""Findings of all batches: written once with their commit, merged on the server as in Python, kept and forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sightings import finding
from store_harness import SHORT_S, StoreHarness, fuzz_payload, wait_until

from fuzzfarm_shared.merging import combine
from fuzzfarm_shared.outcomes import MAX_HOSTS, Finding
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store import Commit, FindingStore, findings, sighting
from fuzzfarm_shared.store.attempts import AttemptStore

Drive = Callable[[Any], None]
EXAMPLES = 1_000


def store_of(store: StoreHarness, signer: Signer | None = None) -> FindingStore:
    return FindingStore(store.server, signer or store.signer)


async def record(store: StoreHarness, *found: Finding, signer: Signer | None = None, times: int = 1) -> list[bool]:
    """Commit an example of a shard that found this, `times` times the same commit; returns whether it was fenced."""
    signer = signer or store.signer
    chunk = await _held(store)
    sightings = [sighting(one, one.hosts[0] if one.hosts else "host", signer) for one in found]
    commit = replace(store.commit_of(chunk, [chunk.done.runs[0][1] if chunk.done.runs else 0]), findings=sightings)
    replies = [await chunk.store.commit(chunk.claim.id, commit) for _ in range(times)]
    await chunk.store.hand_back_all(chunk.claim.id, chunk.done)
    return [reply.fenced for reply in replies]


async def _held(store: StoreHarness) -> Any:
    if not await store.waiting():
        await store.append(0, fuzz_payload(0, EXAMPLES), seal=True)
    return await store.take(store.worker())


def test_a_finding_is_read_as_it_was_written_by_target_and_in_all(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        one = finding(hosts=("pear",), replays=10, replay_failures=7, output="out\ud800", limits={"cpu_s": 2})
        other = finding(id="f2", target="m:g", hosts=("pear",), last_seen=30.0)
        await record(store, one, other)
        assert await store_of(store).read() == [other, one]
        assert await store_of(store).read("m:f") == [one]
        assert await store_of(store).read("m:unknown") == []
        assert one.flaky
        assert await store.immortal() == set()

    drive(steps)


def test_a_commit_that_is_repeated_counts_once_and_a_fenced_one_not_at_all(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        assert await record(store, finding(count=3), times=3) == [False, False, False]
        [kept] = await store_of(store).read()
        assert kept.count == 3
        late = await store.take(store.worker("late", SHORT_S))

        async def is_freed() -> bool:
            return (await store.worker("reaper").take_over(b"report", 60.0)).freed == 1

        await wait_until(is_freed)
        commit = Commit(1, b"", units=1, findings=[sighting(finding(), "late", store.signer)])
        assert (await late.store.commit(late.claim.id, commit)).fenced
        assert await store_of(store).read() == [kept]

    drive(steps)


def test_a_clock_that_is_ahead_has_seen_nothing_that_is_still_to_come(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        before = await store.server.time_s()
        await record(store, finding(first_seen=before + 3_600, last_seen=before + 7_200))
        [kept] = await store_of(store).read()
        assert before - 0.001 <= kept.first_seen <= kept.last_seen <= await store.server.time_s() + 0.001

    drive(steps)


def test_batches_of_a_target_share_their_findings(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await record(store, finding(count=2, hosts=("pear",), first_seen=10.0, last_seen=11.0))
        store.batch += "-2"
        smaller = finding(count=3, choices=b"1", example="f(1)", hosts=("apple",), first_seen=12.0, last_seen=13.0)
        await record(store, smaller)
        [kept] = await store_of(store).read()
        assert kept == replace(smaller, count=5, first_seen=10.0, last_seen=13.0, hosts=("pear", "apple"))

    drive(steps)


def replayed(failures: int | None, **fields: Any) -> Finding:
    return finding(**fields) if failures is None else finding(replays=10, replay_failures=failures, **fields)


sightings_of_one = st.builds(
    replayed,
    st.none() | st.integers(0, 10),
    choices=st.binary(max_size=2),
    example=st.sampled_from(["f(1)", "f(2)", "f('ä')", "f(10)", "f('\ud800')"]),
    index=st.none() | st.integers(0, 3),
    count=st.integers(0, 5),
    first_seen=st.integers(0, 100).map(float),
    last_seen=st.integers(100, 200).map(float),
    hosts=st.sampled_from(["a", "b", "c"]).map(lambda name: (name,)),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(sightings_of_one, min_size=1, max_size=6))
def test_the_server_merges_sightings_as_python_does(drive: Drive, found: list[Finding]) -> None:
    async def steps(store: StoreHarness) -> None:
        expected = found[0]
        for one in found[1:]:
            expected = combine(expected, one)
        await store.forget()
        for one in found:
            await record(store, one)
        [kept] = await store_of(store).read()
        assert kept == expected

    drive(steps)


def test_hosts_are_named_up_to_a_limit(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await record(store, *(finding(hosts=(f"h{number}",)) for number in range(MAX_HOSTS + 5)))
        [kept] = await store_of(store).read()
        assert kept.hosts == tuple(f"h{number}" for number in range(MAX_HOSTS))

    drive(steps)


def test_of_too_many_findings_of_a_target_those_seen_last_are_kept(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "MAX_FINDINGS", 3)

    async def steps(store: StoreHarness) -> None:
        for number in range(3):
            await record(store, finding(id=f"f{number}"), finding(id="other", target="m:g"))
        await store.client.zadd(store.settings.keys.findings_seen("m:f"), {"f0": 10**13})  # seen last
        await record(store, finding(id="new"))
        assert {one.id for one in await store_of(store).read("m:f")} == {"f0", "f2", "new"}
        assert len(await store_of(store).read("m:g")) == 1

    drive(steps)


def test_a_finding_that_is_not_seen_for_long_is_not_shown_and_then_dropped(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        keys = store.settings.keys
        await record(store, finding(id="old"), finding(id="young"))
        long_ago_ms = int((await store.server.time_s() - store.settings.findings_ttl_s - 1) * 1000)
        await store.client.zadd(keys.findings_seen("m:f"), {"old": long_ago_ms})
        assert [one.id for one in await store_of(store).read()] == ["young"]
        assert await store.client.hexists(keys.findings_of("m:f"), "old")  # type: ignore[misc]
        await record(store, finding(id="new"))
        assert not await store.client.hexists(keys.findings_of("m:f"), "old")  # type: ignore[misc]
        for name in (keys.findings, keys.findings_of("m:f"), keys.findings_seen("m:f")):
            assert 0 < await store.client.ttl(name) <= store.settings.findings_ttl_s

    drive(steps)


def test_a_finding_is_named_by_the_beginning_of_its_id(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await record(store, finding(id="ab"), finding(id="abc", target="m:g"), finding(id="b"))

        async def named(beginning: str) -> set[str]:
            return {one.id for one in await store_of(store).named(beginning)}

        assert await named("a") == {"ab", "abc"}
        assert await named("ab") == {"ab"}
        assert await named("abc") == {"abc"}
        assert await named("x") == set()

    drive(steps)


def test_a_finding_that_was_forgotten_is_new_when_it_is_seen_again(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await record(store, finding(count=7))
        [kept] = await store_of(store).read()
        assert await store_of(store).forget(kept)
        assert await store_of(store).read() == []
        assert not await store.client.exists(store.settings.keys.findings)
        assert not await store_of(store).forget(kept)
        await record(store, finding(count=2))
        assert [one.count for one in await store_of(store).read()] == [2]

    drive(steps)


def test_a_finding_without_our_signature_is_left_out(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        ours, theirs = Signer((b"o" * 32,)), Signer((b"t" * 32,))
        await record(store, finding(id="ours"), signer=ours)
        await record(store, finding(id="theirs"), signer=theirs)
        assert [one.id for one in await store_of(store, ours).read()] == ["ours"]

    drive(steps)


def test_a_finding_under_the_name_of_another_is_left_out(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        signer = Signer((b"o" * 32,))
        await record(store, finding(id="real"), signer=signer)
        hash_name = store.settings.keys.findings_of("m:f")
        moved = await store.client.hget(hash_name, "real")  # type: ignore[misc]
        for forged in (moved, b"\xc0", b"", b"\x81\xa1e\x01"):
            await store.client.hset(hash_name, "other", forged)  # type: ignore[misc]
            await store.client.zadd(store.settings.keys.findings_seen("m:f"), {"other": 10**13})
            assert [one.id for one in await store_of(store, signer).read()] == ["real"]

    drive(steps)


@pytest.mark.parametrize("choices", [100, 300_000])
def test_a_large_finding_is_cut_to_a_bounded_record(drive: Drive, choices: int) -> None:
    async def steps(store: StoreHarness) -> None:
        long = "\U0001f40d" * 40_000
        await record(store, finding(example=long, traceback=long, output=long, choices=b"\1" * choices))
        record_bytes = await store.client.hstrlen(store.settings.keys.findings_of("m:f"), "f1")
        assert record_bytes <= findings.MAX_RECORD_BYTES + 1_000
        [kept] = await store_of(store).read()
        assert long.startswith(kept.example)
        assert len(kept.choices) == (choices if choices < 1_000 else 0)

    drive(steps)


@pytest.mark.parametrize(("inputs", "kept_bytes"), [(1_000, 65_536), (65_536, 0)])
def test_the_input_of_a_command_outlasts_choices_in_a_bounded_record(
    drive: Drive, inputs: int, kept_bytes: int
) -> None:
    async def steps(store: StoreHarness) -> None:
        given, word = b"\1" * 65_536, "r" * inputs
        await record(store, finding(input=given, inputs=word, choices=b"\1" * 70_000, signature="s" * 1_000))
        record_bytes = await store.client.hstrlen(store.settings.keys.findings_of("m:f"), "f1")
        assert record_bytes <= findings.MAX_RECORD_BYTES + 1_000
        [kept] = await store_of(store).read()
        assert (kept.choices, len(kept.input or b"")) == (b"", kept_bytes)

    drive(steps)


def test_the_store_of_a_worker_takes_findings_with_a_last_commit(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        await store.append(0, fuzz_payload(0, 10), seal=True)
        worker: AttemptStore = store.worker()
        chunk = await store.take(worker)
        commit = replace(store.commit_of(chunk, chunk.missing), findings=[sighting(finding(), "h", store.signer)])
        assert commit.final
        for _ in range(2):
            assert not (await worker.commit(chunk.claim.id, commit)).fenced
        assert [one.count for one in await store_of(store).read()] == [2]

    drive(steps)
