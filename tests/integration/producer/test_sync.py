"""The blocking facade."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fuzzfarm import BatchNotFoundError, BatchState, CallOperation, DuplicateKeyError, QueueReport, SyncFarm

WAIT_S = 30.0


def test_a_batch_goes_there_and_back_without_await(shared_farm: Any, batch_key: str) -> None:
    with SyncFarm.connect(**shared_farm) as farm:
        batch = farm.submit(CallOperation.many("farm_targets:echo", range(200)), batch_key)
        assert batch.key == batch_key
        assert sorted(int(outcome.key) for outcome in batch.stream()) == list(range(200))
        assert batch.wait(WAIT_S).results == {str(n): n for n in range(200)}
        assert batch.results().status == batch.status() == farm.batch(batch_key).status()
        assert batch.status().state is BatchState.DONE
        assert batch.cancel() == 0
        assert batch_key in [status.key for status in farm.batches()]
        assert len(farm.workers()) == 1
        assert isinstance(farm.queue(), QueueReport)
    assert not [thread for thread in threading.enumerate() if thread.name == "fuzzfarm-sync"]


def test_a_stream_that_is_left_early_leaves_the_farm_usable(shared_farm: Any) -> None:
    with SyncFarm.connect(**shared_farm) as farm:
        batch = farm.submit(CallOperation.many("farm_targets:echo", range(200)))
        for _ in batch.stream():
            break
        assert len(batch.wait(WAIT_S).results) == 200


def test_errors_come_as_they_are(shared_farm: Any) -> None:
    with SyncFarm.connect(**shared_farm) as farm:
        with pytest.raises(BatchNotFoundError):
            farm.batch("never").status()
        with pytest.raises(DuplicateKeyError):
            farm.submit([CallOperation(key="a", target="m:f"), CallOperation(key="a", target="m:f")])
        with pytest.raises(TimeoutError, match="goes on running"):
            farm.submit([CallOperation(target="farm_targets:pause", args=[0.5])]).wait(0.01)


def test_an_exception_in_the_context_closes_it(shared_farm: Any) -> None:
    with pytest.raises(KeyError), SyncFarm.connect(**shared_farm):
        raise KeyError
    assert not [thread for thread in threading.enumerate() if thread.name == "fuzzfarm-sync"]


def test_a_stream_that_is_still_open_ends_with_the_context(shared_farm: Any) -> None:
    with SyncFarm.connect(**shared_farm) as farm:
        left, used_later = (farm.submit(CallOperation.many("farm_targets:echo", range(200))).stream() for _ in range(2))
        assert next(left).ok
        assert next(used_later).ok
    left.close()
    with pytest.raises(RuntimeError, match="only inside its context"):
        list(used_later)


def test_outside_its_context_every_method_says_what_to_do(shared_farm: Any) -> None:
    farm = SyncFarm.connect(**shared_farm)
    for call in (farm.batches, farm.workers):
        with pytest.raises(RuntimeError, match=r"with SyncFarm\.connect"):
            call()
    with farm:
        assert len(farm.workers()) == 1
    with pytest.raises(RuntimeError, match=r"with SyncFarm\.connect"):
        farm.workers()
