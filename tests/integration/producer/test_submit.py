"""What `Farm.submit` takes, refuses, and keeps in order."""

from __future__ import annotations

import asyncio
import itertools
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fuzzfarm import (
    BatchNotFoundError,
    BatchState,
    CallOperation,
    DuplicateKeyError,
    Farm,
    InvalidOperationError,
    PayloadTooLargeError,
    SubprocessJob,
    UnsupportedValueError,
)

WAIT_S = 30.0
ECHO = "farm_targets:echo"


def echo(value: Any, key: str | None = None) -> CallOperation:
    return CallOperation(key=key, target=ECHO, args=[value])


def results_of(settings: dict[str, Any], operations: Any, key: str | None = None) -> dict[str, Any]:
    async def scenario() -> dict[str, Any]:
        async with Farm.connect(**settings) as farm:
            batch = await farm.submit(operations, key)
            aggregate = await batch.wait(WAIT_S)
            assert not aggregate.errors
            assert aggregate.status.state is BatchState.DONE
            assert aggregate.status.total == len(aggregate.results)
            return aggregate.results

    return asyncio.run(scenario())


def test_a_list_keeps_its_keys_and_positions_stand_in_for_missing_ones(shared_farm: Any) -> None:
    operations = [echo("zero"), echo("one", key="named"), echo("two")]
    assert results_of(shared_farm, operations) == {"0": "zero", "named": "one", "2": "two"}


def test_a_generator_is_read_to_its_end(shared_farm: Any) -> None:
    assert results_of(shared_farm, (echo(n) for n in range(300))) == {str(n): n for n in range(300)}


def test_an_async_generator_is_read_to_its_end(shared_farm: Any) -> None:
    async def operations() -> AsyncIterator[CallOperation]:
        for n in range(300):
            yield echo(n)

    assert results_of(shared_farm, operations()) == {str(n): n for n in range(300)}


def test_operations_of_a_slow_async_generator_run_before_it_ends(shared_farm: Any, batch_key: str) -> None:
    async def scenario() -> None:
        first_ran = asyncio.Event()

        async def operations() -> AsyncIterator[CallOperation]:
            yield echo(1, key="first")
            await first_ran.wait()
            yield echo(2, key="second")

        async with Farm.connect(**shared_farm) as farm, asyncio.timeout(WAIT_S):
            submit = asyncio.create_task(farm.submit(operations(), batch_key))
            while True:
                try:
                    outcome = await anext(farm.batch(batch_key).stream())
                    break
                except BatchNotFoundError:
                    await asyncio.sleep(0.01)
            assert (outcome.key, outcome.value) == ("first", 1)
            assert (await farm.batch(batch_key).status()).state is BatchState.SUBMITTING
            first_ran.set()
            aggregate = await (await submit).wait()
            assert aggregate.results == {"first": 1, "second": 2}

    asyncio.run(scenario())


def test_a_group_calls_its_target_once_for_each_item(shared_farm: Any) -> None:
    assert results_of(shared_farm, CallOperation.many(ECHO, "abc")) == {"0": "a", "1": "b", "2": "c"}


def test_a_group_with_star_spreads_each_item_over_the_arguments(shared_farm: Any) -> None:
    group = CallOperation.many("operator:add", zip(range(100), range(100), strict=True), star=True)
    assert results_of(shared_farm, group) == {str(n): 2 * n for n in range(100)}


def test_groups_and_single_operations_mix_and_share_one_count_of_positions(shared_farm: Any) -> None:
    operations = [echo("a"), CallOperation.many(ECHO, ["b", "c"]), echo("d", key="last"), CallOperation.many(ECHO, [])]
    assert results_of(shared_farm, operations) == {"0": "a", "1": "b", "2": "c", "last": "d"}


@pytest.mark.parametrize(
    "empty", [[], (), iter(()), CallOperation.many(ECHO, ())], ids=["list", "tuple", "it", "group"]
)
def test_an_empty_batch_is_done_at_once(shared_farm: Any, empty: Any) -> None:
    assert results_of(shared_farm, empty) == {}


def test_every_operation_of_many_payloads_comes_back_once(shared_farm: Any) -> None:
    settings = {**shared_farm, "chunk_operations": 100}
    expected = {f"k{n}": n for n in range(2_000)}
    assert results_of(settings, (echo(n, key=f"k{n}") for n in range(2_000))) == expected


def test_operations_too_large_for_one_payload_together_are_cut_up(shared_farm: Any) -> None:
    texts = {f"k{n}": chr(97 + n) * 300_000 for n in range(8)}
    operations = [CallOperation(key=key, target="builtins:len", args=[text]) for key, text in texts.items()]
    assert results_of(shared_farm, operations) == dict.fromkeys(texts, 300_000)


MEMORY_PROBE = """
import asyncio, resource, sys
from fuzzfarm import CallOperation, Farm

async def submit(count):
    async with Farm.connect(sys.argv[1], namespace=sys.argv[2], queue_limit=100_000) as farm:
        operations = (CallOperation(target="m:f", args=[n, "x" * 200]) for n in range(count))
        await farm.submit(operations)

asyncio.run(submit(20_000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
asyncio.run(submit(100_000))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_the_producer_does_not_grow_with_the_number_of_operations(server_url: str, namespace: str) -> None:
    """I7. Seen to fail where a submit makes a list of its input (`Feed([*operations])` in submission.py)."""
    probe = [sys.executable, "-c", MEMORY_PROBE, server_url, namespace]
    grown = int(subprocess.run(probe, check=True, stdout=subprocess.PIPE, text=True).stdout)
    grown_bytes = grown * (1 if sys.platform == "darwin" else 1024)
    assert grown_bytes < 8_000_000 < 100_000 * 200
    assert resource.getpagesize()


def test_a_key_that_comes_twice_in_a_sequence_is_found_before_anything_is_sent(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            operations = [*(echo(n, key=f"k{n}") for n in range(1_000)), echo(0, key="k7")]
            with pytest.raises(DuplicateKeyError, match="'k7'") as caught:
                await farm.submit(operations, "twice")
            assert caught.value.key == "k7"
            assert await farm.batches() == []

    asyncio.run(scenario())


def test_a_key_that_comes_twice_in_lazy_input_cancels_the_batch_and_is_named(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            numbers = [*range(1_000), 7]
            with pytest.raises(DuplicateKeyError, match="'k7'") as caught:
                await farm.submit((echo(n, key=f"k{n}") for n in numbers), "twice")
            assert caught.value.key == "k7"
            status = await farm.batch("twice").status()
            assert (status.state, status.done) == (BatchState.CANCELLED, True)
            assert 0 < status.total == status.cancelled < 1_001

    asyncio.run(scenario())


def test_a_key_that_comes_twice_in_one_payload_of_lazy_input_is_found_before_it_is_sent(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            with pytest.raises(DuplicateKeyError, match="'k'"):
                await farm.submit(iter([echo(1, key="k"), echo(2, key="k")]), "twice")
            assert all(status.total == 0 for status in await farm.batches())

    asyncio.run(scenario())


@pytest.mark.parametrize("place", [0, 5_000])
def test_a_number_as_key_beside_positions_is_refused_before_anything_is_sent(farm_settings: Any, place: int) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            operations = [echo(n) for n in range(5_000)]
            operations.insert(place, echo(0, key="17"))
            with pytest.raises(InvalidOperationError, match="'17' could also be the position"):
                await farm.submit(operations, "numbers")
            assert await farm.batches() == []

    asyncio.run(scenario())


def test_a_number_as_key_beside_a_group_is_refused(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            with pytest.raises(InvalidOperationError, match="'1' could also be the position"):
                await farm.submit([echo(0, key="1"), CallOperation.many(ECHO, "ab")])
            assert await farm.batches() == []

    asyncio.run(scenario())


@pytest.mark.parametrize("wrong", [None, "farm_targets:echo", {"target": ECHO}, 7, CallOperation])
def test_what_is_no_operation_is_named_before_anything_is_sent(farm_settings: Any, wrong: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            operations = [*(echo(n) for n in range(1_000)), wrong, echo(1)]
            with pytest.raises(InvalidOperationError, match="is no operation: make a CallOperation"):
                await farm.submit(operations)
            assert await farm.batches() == []

    asyncio.run(scenario())


def test_none_in_lazy_input_does_not_end_it_silently(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            with pytest.raises(InvalidOperationError, match="NoneType is no operation"):
                await farm.submit(iter([echo(1), None, echo(2)]))  # type: ignore[list-item]

    asyncio.run(scenario())


def test_an_exception_of_lazy_input_reaches_the_caller(farm_settings: Any) -> None:
    def operations() -> Iterator[CallOperation]:
        yield echo(1)
        raise LookupError("the file of inputs is gone")

    async def async_operations() -> AsyncIterator[CallOperation]:
        for operation in operations():
            yield operation

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            with pytest.raises(LookupError, match="the file of inputs is gone"):
                await farm.submit(operations())
            with pytest.raises(LookupError, match="the file of inputs is gone"):
                await farm.submit(async_operations())

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "wrong", [echo(1), {"key": "a"}, "farm_targets:echo", b"bytes", None, 5], ids=lambda value: type(value).__name__
)
def test_a_single_thing_instead_of_an_iterable_of_operations_says_what_to_do(farm_settings: Any, wrong: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            with pytest.raises(
                InvalidOperationError, match=f"not {type(wrong).__name__}: put a single one into a list"
            ):
                await farm.submit(wrong)

    asyncio.run(scenario())


@pytest.mark.parametrize("key", ["", " ", "a b", "-first", "new\nline", "a\n", "ü", "k" * 201, "a@b", "a{b}", "\0"])
def test_a_bad_batch_key_is_refused(farm_settings: Any, key: str) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            with pytest.raises(InvalidOperationError, match="cannot be a batch key"):
                await farm.submit([], key)
            with pytest.raises(InvalidOperationError, match="cannot be a batch key"):
                farm.batch(key)

    asyncio.run(scenario())


def test_an_oversized_operation_is_named(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings, max_payload_bytes=10_000) as farm:
            with pytest.raises(PayloadTooLargeError, match=r"'large' takes .* limit is 10,000") as caught:
                await farm.submit([echo("x", key="small"), echo("x" * 20_000, key="large")])
            assert caught.value.key == "large"
            assert caught.value.size_bytes > 20_000

    asyncio.run(scenario())


def test_an_argument_that_cannot_travel_is_refused(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            with pytest.raises(UnsupportedValueError, match=r"builtins\.object cannot be sent: return plain data"):
                await farm.submit([echo(object())])

    asyncio.run(scenario())


def test_a_target_that_no_worker_could_import_is_refused_when_the_operation_is_made() -> None:
    def closure() -> None: ...

    with pytest.raises(ValueError, match="a lambda and no worker can import it: move it to the top level"):
        CallOperation(target=lambda: None)
    with pytest.raises(ValueError, match="defined inside another function"):
        CallOperation(target=closure)


def test_a_farm_used_outside_of_its_context_says_so(farm_settings: Any) -> None:
    async def scenario() -> None:
        farm = Farm.connect(**farm_settings)
        with pytest.raises(RuntimeError, match="use it inside `async with"):
            await farm.submit([])
        async with farm:
            await farm.submit([])
        with pytest.raises(RuntimeError, match="use it inside `async with"):
            await farm.batches()

    asyncio.run(scenario())


def test_the_newest_batches_come_first(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            for key in ("one", "two", "three"):
                await farm.submit([SubprocessJob(command=["true"])], key)
                await asyncio.sleep(0.002)  # the order is by milliseconds of the server
            assert [status.key for status in await farm.batches()] == ["three", "two", "one"]
            assert [status.key for status in await farm.batches(limit=1)] == ["three"]

    asyncio.run(scenario())


def test_two_batches_whose_keys_differ_only_in_a_suffix_do_not_touch_each_other(farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            for key in ("nightly", "nightly:p", "nightly:c", "nightly:o", "nightly:s", "nightly:k", "nightly:m:0"):
                batch = await farm.submit([echo(key)], key)
                assert (await batch.status()).total == 1

    asyncio.run(scenario())


def test_cancelling_a_submit_of_endless_input_ends_it_at_once(shared_farm: Any, batch_key: str) -> None:
    async def accepted(farm: Farm) -> int:
        try:
            return (await farm.batch(batch_key).status()).total
        except BatchNotFoundError:
            return 0

    async def scenario() -> None:
        async with Farm.connect(**shared_farm) as farm, asyncio.timeout(WAIT_S):
            submit = asyncio.create_task(farm.submit((echo(n) for n in itertools.count()), batch_key))
            while await accepted(farm) < 1_000:
                await asyncio.sleep(0)
            submit.cancel()
            await asyncio.wait([submit])
            assert submit.cancelled()
            assert await accepted(farm) < 200_000
            await farm.batch(batch_key).cancel()

    asyncio.run(scenario())
