"""Progress on the server: who may tell it, what is forgotten when, and what a reader does not take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from store_harness import Held, StoreHarness, call_payload

from fuzzfarm_shared.keys import AttemptId, Part
from fuzzfarm_shared.progress import MESSAGE_BYTES, MOST_CHUNKS, WATCHED_S, Progress, encode_progress
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.store import TellingStore

Drive = Callable[[Any], None]

KEY = "k" * 40


class Telling:
    """The progress of the batch of a test."""

    def __init__(self, store: StoreHarness) -> None:
        self.store = store
        self.telling = TellingStore(store.server, Signer((KEY.encode(),)))
        self.name = store.settings.keys.batch(store.batch, Part.PROGRESS)

    async def chunk(self) -> Held:
        """Return a chunk of two operations, held by a worker."""
        await self.store.append(0, call_payload(0, 2), seal=True)
        return await self.store.take(self.store.worker())

    async def tell(self, attempt: AttemptId, key: str = "0") -> None:
        await self.telling.tell(attempt, self.store.submit_id, [progress(key)])

    async def look(self) -> dict[int, list[Progress]]:
        return await self.telling.look(self.store.batch, self.store.submit_id)


def progress(key: str = "0") -> Progress:
    return Progress(key, 1, "w", 1.5, 2, 3, "out", "err", memory_bytes=4, cpu_time_s=0.5)


def test_progress_is_kept_only_while_somebody_looks_and_the_newest_counts(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        progresses = Telling(store)
        attempt = (await progresses.chunk()).claim.id
        await progresses.tell(attempt)
        assert await store.client.exists(progresses.name) == 0
        assert await progresses.look() == {}
        await progresses.tell(attempt)
        assert await progresses.look() == {0: [progress()]}
        await progresses.tell(attempt, "1")
        assert await progresses.look() == {0: [progress("1")]}
        assert 0 < await store.client.pttl(progresses.name) <= WATCHED_S * 1000

    drive(steps)


def test_renewing_a_lease_tells_the_worker_that_somebody_looks(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        progresses = Telling(store)
        attempt = (await progresses.chunk()).claim.id

        async def renew() -> list[bytes]:
            return list(await store.server.run("renew", 60_000, str(attempt)))

        assert await renew() == [b""]
        await progresses.look()
        assert await renew() == [b"watched"]

    drive(steps)


def test_a_commit_forgets_progress_that_may_name_what_it_records(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        progresses = Telling(store)
        chunk = await progresses.chunk()
        await progresses.look()
        await progresses.tell(chunk.claim.id)
        await store.commit(chunk, [0])
        assert await progresses.look() == {}
        await progresses.tell(chunk.claim.id, "1")
        await store.commit(chunk)
        await progresses.tell(chunk.claim.id, "1")
        assert await progresses.look() == {}

    drive(steps)


def test_only_the_holder_of_a_chunk_tells_of_it(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        progresses = Telling(store)
        held = (await progresses.chunk()).claim.id
        await progresses.look()
        await progresses.tell(AttemptId(held.batch, held.chunk, "1-other"))
        assert await progresses.look() == {}

    drive(steps)


def test_of_more_chunks_than_a_reader_can_take_in_the_first_are_told(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        progresses = Telling(store)
        attempt = (await progresses.chunk()).claim.id
        await progresses.look()
        others = {str(chunk): b"" for chunk in range(1, MOST_CHUNKS + 1)}
        await store.client.hset(progresses.name, mapping=others)  # type: ignore[misc]
        await progresses.tell(attempt)
        assert await store.client.hlen(progresses.name) == MOST_CHUNKS  # type: ignore[misc]
        await store.client.hdel(progresses.name, "1")  # type: ignore[misc]
        await progresses.tell(attempt)
        assert await store.client.hexists(progresses.name, "0")  # type: ignore[misc]

    drive(steps)


def test_forged_broken_and_oversized_progress_is_left_out(drive: Drive) -> None:
    async def steps(store: StoreHarness) -> None:
        progresses = Telling(store)
        await progresses.chunk()
        context = ("progress", store.batch, store.submit_id)
        signed = encode_progress([progress()])
        forgeries = {
            "0": Signer((b"x" * 40,)).seal(signed, (*context, 0)),
            "1": Signer((KEY.encode(),)).seal(signed, (*context, 0)),  # of another chunk
            "2": Signer().seal(signed, (*context, 2)),
            "3": b"",
            "4": b"\1",
            "5": Signer((KEY.encode(),)).seal(b"\xc0" * MESSAGE_BYTES, (*context, 5)),
        }
        await store.client.hset(progresses.name, mapping=forgeries)  # type: ignore[misc]
        assert await progresses.look() == {}

    drive(steps)
