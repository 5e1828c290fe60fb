"""I1, I2 and I7 in any order of steps: submit, claim, commit, hand back, die, take over, cancel, and all of it twice.

Seen to fail without the comparison of tokens, where a repeated commit counts, errors move no counter (commit.lua),
where a batch ends with operations pending (`finish_if_complete` in prelude.lua), and without `keep` (there); for
examinations, where each of them counts as a unit (commit.lua), where none does, a finding is examined twice, several
are examined while shards run, one begins after the batch was cancelled, and what they need stays (examination.lua).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sightings import finding
from store_harness import Held, StoreHarness, call_payload, fuzz_payload, wait_until

from fuzzfarm_shared.keys import AttemptPhase, ChunkKind, Part
from fuzzfarm_shared.schedule import StopReason
from fuzzfarm_shared.settings import FarmSettings
from fuzzfarm_shared.store import Claim, Commit, sighting
from fuzzfarm_shared.store.findings import open_finding

WORKERS = st.sampled_from(["w1", "w2", "w3"])
PLACE = st.integers(0, 50)
TIMES = st.sampled_from([1, 1, 2])
PAYLOAD = st.tuples(st.integers(1, 5), st.booleans())
SELDOM = st.sampled_from([False] * 5 + [True])
FOUND = st.lists(st.sampled_from("abcdef"), max_size=3)


@dataclass
class Search:
    """What the model knows of a fuzz operation.

    Attributes:
        place: of the operation in its batch.
        units: examples that no commit has counted.
        found: findings that were told while the batch went on, in the order in which they were told first.
        ended: those whose examination has ended.
        begun: how many had begun when the batch was cancelled.
    """

    place: int
    units: int
    found: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    begun: int | None = None


class StoreMachine(RuleBasedStateMachine):
    """Drives one batch; the model is what each holder knows, the server's answers are checked against it."""

    def __init__(self, farm_settings: FarmSettings) -> None:
        super().__init__()
        self.settings = farm_settings
        self.runner = asyncio.Runner()
        self.store = StoreHarness(farm_settings, f"{farm_settings.namespace}-{secrets.token_hex(4)}")
        self.payloads = 0
        self.operations = 0
        self.sealed = False
        self.cancelled = False
        self.held: list[Held] = []
        self.zombies: list[Held] = []
        self.searches: dict[int, Search] = {}

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(step)

    @initialize(payloads=st.lists(PAYLOAD, min_size=2, max_size=3))
    def open(self, payloads: list[tuple[int, bool]]) -> None:
        """A batch with something in it: each run does without some of the rules, and `append` may be among these."""
        accepted = self.run(self.store.submissions.open(self.store.batch))
        self.store.submit_id = accepted.submit_id
        for name in ("w1", "w2", "w3"):
            self.run(self.store.worker(name).take_over(b"alive", 60.0))
        for payload in payloads:
            self.append_once(*payload)

    def append_once(self, count: int, fuzz: bool, seal: bool = False, times: int = 1) -> None:
        payload = fuzz_payload(self.operations, count * 3) if fuzz else call_payload(self.operations, count)
        if fuzz:
            self.searches[self.payloads] = Search(self.operations, count * 3)
        self.operations += payload.operations
        for _ in range(times):
            accepted = self.run(self.store.append(self.payloads, payload, seal=seal))
            assert (accepted.status, accepted.payloads) == ("ok", self.payloads + 1)
            assert (accepted.operations, accepted.sealed) == (self.operations, seal)
        self.payloads += 1
        self.sealed = seal

    @precondition(lambda self: not self.sealed and not self.cancelled)
    @rule(payload=PAYLOAD, seal=SELDOM, times=TIMES)
    def append(self, payload: tuple[int, bool], seal: bool, times: int) -> None:
        self.append_once(*payload, seal, times)

    @precondition(lambda self: not self.sealed)
    @rule(times=TIMES)
    def seal(self, times: int) -> None:
        for _ in range(times):
            accepted = self.run(self.store.submissions.seal(self.store.batch, self.store.submit_id, self.payloads))
            assert (accepted.status, accepted.sealed) == ("ok", True)
        self.sealed = True

    @precondition(lambda self: not self.held and not self.run(self.store.waiting()))
    @rule(worker=WORKERS)
    def report(self, worker: str) -> None:
        found = self.run(self.store.worker(worker).take_over(b"alive", 60.0))
        assert (found.freed, found.leased) == (0, len(self.held))

    @precondition(lambda self: self.run(self.store.waiting()))
    @rule(worker=WORKERS, place=PLACE, times=TIMES)
    def claim(self, worker: str, place: int, times: int) -> None:
        waiting = self.run(self.store.waiting())
        attempt, store = waiting[place % len(waiting)], self.store.worker(worker)
        first = self.run(self.store.claim(store, attempt))
        if not isinstance(first, Claim):
            return  # this worker refused it before
        for _ in range(times - 1):
            again = self.run(store.claim(attempt))
            assert isinstance(again, Claim)
            assert (again.start, again.stop, again.payload) == (first.start, first.stop, first.payload)
            assert (again.kind, again.enclosed) == (first.kind, first.enclosed)
        assert 0 <= first.unrecorded <= first.deaths
        assert self.run(self.store.worker("other").claim(attempt)) is None
        self.held.append(Held(first, store, first.stop, first.done, first.commits))

    @precondition(lambda self: self.held)
    @rule(place=PLACE, share=st.integers(0, 5), failed=st.integers(0, 2), found=FOUND, times=TIMES)
    def commit_some(self, place: int, share: int, failed: int, found: list[str], times: int) -> None:
        chunk = self.held[place % len(self.held)]
        units = chunk.missing[:share]
        self.send(chunk, self.store.commit_of(chunk, units, min(failed, len(units))), found, times)

    @precondition(lambda self: self.held)
    @rule(place=PLACE, failed=st.integers(0, 2), found=FOUND, times=TIMES)
    def commit_rest(self, place: int, failed: int, found: list[str], times: int) -> None:
        chunk = self.held[place % len(self.held)]
        units = chunk.missing
        self.send(chunk, self.store.commit_of(chunk, units, min(failed, len(units))), found, times)

    def send(self, chunk: Held, commit: Commit, found: list[str], times: int) -> None:
        search = self.searches.get(chunk.claim.payload)
        if search is not None and chunk.claim.kind is ChunkKind.UNITS:
            seen = [sighting(finding(id=name, target="mod:f"), "h", self.store.signer, examine=True) for name in found]
            commit = replace(commit, findings=seen)
            search.units -= commit.units
            search.found += [name for name in dict.fromkeys(found) if name not in search.found]
        elif search is not None and chunk.claim.kind is ChunkKind.EXAMINATION and commit.final:
            search.ended.append(self.examined(chunk))
        for _ in range(times):
            reply = self.run(chunk.store.commit(chunk.claim.id, commit))
            assert not reply.fenced
            assert (reply.stop_reason is StopReason.CANCELLED) == self.cancelled
        if commit.final:
            self.held.remove(chunk)
            self.zombies.append(chunk)

    @precondition(lambda self: self.held)
    @rule(place=PLACE, split=PLACE, times=TIMES)
    def hand_back_rest(self, place: int, split: int, times: int) -> None:
        chunk = self.held[place % len(self.held)]
        untouched = [
            unit for unit in chunk.missing if unit > max([chunk.claim.start, *(run[1] for run in chunk.done.runs)])
        ]
        if chunk.claim.kind is ChunkKind.MERGE or not untouched:
            return
        split = untouched[split % len(untouched)]
        for _ in range(times):
            assert self.run(
                chunk.store.hand_back_rest(chunk.claim.id, chunk.done, chunk.claim.start, split, chunk.stop)
            )
        chunk.stop = split

    @precondition(lambda self: self.held)
    @rule(place=PLACE, refuse=st.booleans(), times=TIMES)
    def hand_back(self, place: int, refuse: bool, times: int) -> None:
        chunk = self.held[place % len(self.held)]
        give = chunk.store.refuse if refuse else chunk.store.hand_back_all
        first, *rest = [self.run(give(chunk.claim.id, chunk.done)) for _ in range(times)]
        if refuse and first:
            assert all(rest)
            return  # settled: it is still ours, to record why
        assert not any(rest)
        self.held.remove(chunk)
        self.zombies.append(chunk)

    @precondition(lambda self: self.held)
    @rule(
        place=PLACE,
        phase=st.none() | st.sampled_from(AttemptPhase),
        told=st.sampled_from(["before", "after", "never"]),
        times=TIMES,
    )
    def die(self, place: int, phase: AttemptPhase | None, told: str, times: int) -> None:
        chunk = self.held.pop(place % len(self.held))
        self.zombies.append(chunk)
        has_ended = self.run(self.store.status()).done  # what is held of it has no record any more
        for _ in range(times if phase else 0):
            assert phase is not None
            assert self.run(chunk.store.enter(chunk.claim.id, phase)) != has_ended
        if told == "before":
            self.tell_of(chunk, times, useful=not has_ended)
        self.run(self.end_lease(chunk))
        if told == "after":
            ran = phase is AttemptPhase.RUNNING or (phase is None and chunk.claim.deaths == 0)
            self.tell_of(chunk, times, useful=ran and not has_ended)

    def tell_of(self, chunk: Held, times: int, *, useful: bool) -> None:
        for _ in range(times):
            assert self.run(chunk.store.suspect(chunk.claim.id, chunk.claim.start, chunk.stop)) == useful

    @precondition(lambda self: self.zombies)
    @rule(place=PLACE)
    def a_dead_worker_is_told_of_again(self, place: int) -> None:
        chunk = self.zombies[place % len(self.zombies)]
        self.run(chunk.store.suspect(chunk.claim.id, chunk.claim.start, chunk.stop))

    async def end_lease(self, chunk: Held) -> None:
        name, attempt = self.settings.keys.leases, str(chunk.claim.id)
        await self.store.client.zadd(name, {attempt: 1}, xx=True)

        async def freed() -> bool:
            await self.store.worker("").take_over(b"", 1.0)
            return await self.store.client.zscore(name, attempt) is None

        await wait_until(freed)

    @precondition(lambda self: self.zombies)
    @rule(place=PLACE)
    def a_zombie_writes(self, place: int) -> None:
        """Whoever lost or finished its chunk changes nothing any more."""
        chunk = self.zombies[place % len(self.zombies)]
        before = self.run(self.readings())
        commit = Commit(99, b"zombie", succeeded=1, units=1, final=True)
        self.run(chunk.store.commit(chunk.claim.id, commit))
        assert not self.run(chunk.store.hand_back_rest(chunk.claim.id, chunk.done, 0, 0, 1))
        assert not self.run(chunk.store.hand_back_all(chunk.claim.id, chunk.done))
        assert not self.run(chunk.store.refuse(chunk.claim.id, chunk.done))
        assert self.run(chunk.store.claim(chunk.claim.id)) is None
        assert self.run(self.readings()) == before

    async def readings(self) -> tuple[Any, ...]:
        status = await self.store.status()
        counters = status.model_dump(exclude={"late_duplicates"})
        return counters, await self.store.outcome_keys(), await self.store.waiting(), await self.fields()

    async def fields(self) -> dict[str, bytes]:
        """What the server keeps of payloads."""
        name = self.settings.keys.batch(self.store.batch, Part.PAYLOADS)
        raw = await self.store.client.hgetall(name)  # type: ignore[misc]
        return {field.decode(): value for field, value in raw.items()}

    async def chunks(self) -> list[dict[str, Any]]:
        """Records of the chunks that have not ended."""
        name = self.settings.keys.batch(self.store.batch, Part.CHUNKS)
        packed = await self.store.client.hvals(name)  # type: ignore[misc]
        records = [msgpack.unpackb(raw, unicode_errors="replace") for raw in packed]
        return [record for record in records if record["s"] != "d"]

    @rule(times=TIMES)
    @precondition(lambda self: (self.operations > 12 or self.is_examining) and not self.cancelled)
    def cancel(self, times: int) -> None:
        was_done = self.run(self.store.status()).done
        begun = {payload: self.run(self.begun(payload)) for payload in self.searches}
        for _ in range(times):
            self.run(self.store.cancel())
        if not was_done:
            self.cancelled = self.sealed = True
            for payload, search in self.searches.items():
                self.settle(payload, search, begun[payload])

    @property
    def is_examining(self) -> bool:
        return any(len(search.found) > 2 > len(search.ended) for search in self.searches.values())

    def examined(self, chunk: Held) -> str:
        """Return the id of the finding that a chunk examines, which must come with it."""
        identifier, envelope = chunk.claim.enclosed
        return open_finding(envelope, "mod:f", identifier.decode(), self.store.signer).id

    async def begun(self, payload: int) -> int:
        packed = (await self.fields()).get(f"e{payload}")
        return 0 if packed is None else msgpack.unpackb(packed)["at"]

    def settle(self, payload: int, search: Search, begun: int) -> None:
        """Whoever cancels has ended what waited; what is held goes on."""
        held = [chunk for chunk in self.held if chunk.claim.payload == payload]
        search.units = sum(len(chunk.missing) for chunk in held if chunk.claim.kind is ChunkKind.UNITS)
        running = {self.examined(chunk) for chunk in held if chunk.claim.kind is ChunkKind.EXAMINATION}
        search.ended = [name for name in search.found[:begun] if name not in running]
        search.begun = begun

    @invariant()
    def every_reading_adds_up(self) -> None:
        status = self.run(self.store.status())
        assert status.total == self.operations
        assert status.total == status.succeeded + status.failed + status.cancelled + status.pending
        assert status.pending >= 0
        assert status.sealed == self.sealed
        assert status.done == (status.pending == 0 and status.sealed)
        assert self.run(self.store.ends()) == int(status.done)

    @invariant()
    def every_operation_has_at_most_one_outcome(self) -> None:
        keys = self.run(self.store.outcome_keys())
        assert max(Counter(keys).values(), default=1) == 1
        assert set(keys) <= set(map(str, range(self.operations)))
        assert len(keys) == self.run(self.store.status()).completed

    @invariant()
    def units_and_examinations_add_up(self) -> None:
        """One unit for all examinations of an operation, one at a time while its shards run, and none of them lost."""
        fields, examining = self.run(self.fields()), defaultdict[int, list[str]](list)
        for record in self.run(self.chunks()):
            if record.get("k") == ChunkKind.EXAMINATION:
                examining[record["p"]].append(record["f"])
        outcomes = self.run(self.store.outcome_keys())
        for payload, search in self.searches.items():
            running = examining.pop(payload, [])
            kept = {name for name in fields if name[0] in "erf" and name[1:].split(":")[0] == str(payload)}
            if str(search.place) in outcomes:
                assert (running, kept) == ([], set())
                assert self.cancelled or (search.units == 0 and sorted(search.ended) == sorted(search.found))
                continue
            assert int(fields[f"r{payload}"]) == search.units + bool(running)
            waiting = [name for name in search.found if name not in [*running, *search.ended]]
            assert kept - {f"e{payload}", f"r{payload}"} == {f"f{payload}:{name}" for name in [*running, *waiting]}
            assert sorted([*running, *waiting, *search.ended]) == sorted(search.found)
            assert search.units == 0 or len(running) <= 1
            assert running or not waiting or self.cancelled
            assert search.begun in {None, len(running) + len(search.ended)}
        assert not examining

    @invariant()
    def everything_expires(self) -> None:
        assert self.run(self.store.immortal()) == set()

    def teardown(self) -> None:
        """Whatever happened, workers can finish the batch from here, and nothing but its results stays."""
        try:
            self.run(self.finish())
        finally:
            self.run(self.store.forget())  # the next example scans all keys
            self.run(self.store.close())
            self.runner.close()

    async def finish(self) -> None:
        if not self.cancelled:
            await self.store.submissions.seal(self.store.batch, self.store.submit_id, self.payloads)
        for chunk in self.held:
            await self.store.commit(chunk)
        while waiting := await self.store.waiting():
            await self.store.commit(await self.store.take(self.store.worker("last"), waiting[0]))
        status = await self.store.status()
        assert status.done
        assert sorted(await self.store.outcome_keys(), key=int) == list(map(str, range(self.operations)))
        keys = self.settings.keys
        left = {name for name in await self.store.names() if self.store.batch in name}
        results = {keys.batch(self.store.batch, part) for part in (Part.META, Part.OUTCOMES, Part.BOUNDARIES)}
        assert left <= results
        assert await self.store.client.zcard(keys.leases) == 0
        lengths = [await self.store.client.llen(name) for name in keys.wake_lists()]  # type: ignore[misc]
        assert set(lengths) == {0}


def test_every_operation_gets_exactly_one_outcome_whatever_happens(producer_settings: FarmSettings) -> None:
    # Not shrunk: that takes minutes of round trips, and 25 steps can be read.
    run_state_machine_as_test(
        lambda: StoreMachine(producer_settings),
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
