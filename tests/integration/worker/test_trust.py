"""What workers refuse: targets, programs and folders on no list, and payloads that are not signed as they must be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from books import until_workers
from redis.asyncio import Redis

from fuzzfarm import CallOperation, ErrorKind, Farm, FuzzOperation, OperationError, SignatureError, SubprocessJob
from fuzzfarm_shared.keys import Keys, Part
from fuzzfarm_shared.settling import cancel_order
from fuzzfarm_shared.signing import Signer

WAIT_S = 30.0
KEY, OTHER_KEY = "k" * 32, "o" * 32


def note(folder: Path, key: str) -> CallOperation:
    return CallOperation(key=key, target="farm_targets:note", args=[str(folder), key])


def error_of(settings: dict[str, Any], operation: Any) -> OperationError:
    async def scenario() -> OperationError:
        async with Farm.connect(**settings) as farm:
            batch = await farm.submit([operation.model_copy(update={"key": "it"})])
            return (await batch.wait(WAIT_S)).errors["it"]

    return asyncio.run(scenario())


def test_a_target_that_one_worker_refuses_runs_on_another(start_worker: Any, farm_settings: Any) -> None:
    """I5. Seen to fail where one refusal is enough, or live workers do not count (`is_refused` in prelude.lua)."""
    start_worker(allow_targets="math")

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            await until_workers(farm, 1)
            allowed = start_worker(allow_targets="farm_targets")
            await until_workers(farm, 2)
            for _ in range(3):
                batch = await farm.submit(CallOperation.many("farm_targets:worker_pid", range(5)))
                assert set((await batch.wait(WAIT_S)).results.values()) == {allowed.pid}

    asyncio.run(scenario())


def test_a_chunk_of_two_targets_is_shared_by_the_workers_that_allow_them(start_worker: Any, farm_settings: Any) -> None:
    start_worker(allow_targets="math")
    start_worker(allow_targets="farm_targets")

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            await until_workers(farm, 2)
            operations = [
                CallOperation(key="m", target="math:sqrt", args=[4]),
                CallOperation(key="f", target="farm_targets:echo", args=[1]),
            ]
            aggregate = await (await farm.submit(operations)).wait(WAIT_S)
            assert aggregate.results == {"m": 2.0, "f": 1}

    asyncio.run(scenario())


def test_what_all_live_workers_refuse_is_rejected_and_says_what_to_do(start_worker: Any, farm_settings: Any) -> None:
    start_worker(allow_targets="math")
    start_worker(allow_targets="math,operator")

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            await until_workers(farm, 2)
            batch = await farm.submit([CallOperation(key="f", target="farm_targets:echo", args=[1])])
            error = (await batch.wait(WAIT_S)).errors["f"]
            assert error.kind is ErrorKind.REJECTED
            assert "not allowed on this worker: add --allow-target farm_targets" in error.message

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def strict_farm(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A farm with one worker that allows little; yields settings and its one allowed folder."""
    import os
    import secrets
    import subprocess
    import sys

    namespace, root = f"strict{secrets.token_hex(4)}", tmp_path_factory.mktemp("root")
    support = Path(__file__).parent.parent.parent / "support"
    (root / "out").symlink_to("/etc")
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzzfarm_worker", "run"],
        env={
            **os.environ,
            "FUZZFARM_REDIS_URL": server_url,
            "FUZZFARM_NAMESPACE": namespace,
            "FUZZFARM_ALLOW_TARGETS": "farm_targets,fuzz_inputs",
            "FUZZFARM_ALLOW_COMMANDS": "echo,pwd,env",
            "FUZZFARM_ALLOW_ROOTS": str(root),
            "FUZZFARM_ALLOW_ENV": "WORD",
            "SECRET_OF_THE_HOST": "hidden",
            "PYTHONPATH": str(support),
        },
        stdin=subprocess.DEVNULL,
    )
    yield {"url": server_url, "namespace": namespace}, root
    process.terminate()
    process.wait(20)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("os:getpid", "'os:getpid' is not allowed"),
        ("farm_targets_of_others:f", "is not allowed"),
        ("farm_targets:os.getpid", "comes from 'posix': allow it by its exact name"),
        ("farm_targets:borrowed_add", "comes from '_operator': allow it by its exact name"),
        ("farm_targets:asyncio.run", "comes from 'asyncio.runners'"),
    ],
)
@pytest.mark.parametrize("isolation", ["worker", "child"])
def test_a_target_that_is_not_of_an_allowed_module_is_refused(
    strict_farm: Any, target: str, reason: str, isolation: Any
) -> None:
    settings, _ = strict_farm
    error = error_of(settings, CallOperation(target=target, isolation=isolation))
    assert error.kind is ErrorKind.REJECTED
    assert reason in error.message


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target": "farm_targets:os.system"}, "comes from 'posix': allow it by its exact name"),
        (
            {"target": "farm_targets:fuzz_small", "strategy": "farm_targets:os.getpid"},
            "'farm_targets:os.getpid' comes from 'posix': allow it by its exact name",
        ),
    ],
    ids=["target", "strategy"],
)
@pytest.mark.parametrize("isolation", ["child", "none"])
def test_what_is_fuzzed_must_be_of_an_allowed_module_too(
    strict_farm: Any, options: Any, reason: str, isolation: Any
) -> None:
    settings, _ = strict_farm
    error = error_of(settings, FuzzOperation(examples=10, isolation=isolation, **options))
    assert error.kind is ErrorKind.REJECTED
    assert reason in error.message


def test_a_strategy_of_an_allowed_module_may_be_a_value(strict_farm: Any) -> None:
    settings, _ = strict_farm

    async def scenario() -> None:
        async with Farm.connect(**settings) as farm:
            fuzz = FuzzOperation(key="it", target="farm_targets:echo", strategy="fuzz_inputs:SMALL", examples=10)
            assert (await (await farm.submit([fuzz])).wait(WAIT_S)).results["it"].examples == 10

    asyncio.run(scenario())


@pytest.mark.parametrize("folder", ["/etc", "{root}/out", "{root}/../outside", "~"])
def test_seeds_outside_of_the_roots_are_refused(strict_farm: Any, folder: str) -> None:
    settings, root = strict_farm
    seeds = folder.format(root=root)
    error = error_of(settings, FuzzOperation(examples=10, target="farm_targets:echo", inputs=f"seeds:{seeds}"))
    assert error.kind is ErrorKind.REJECTED
    assert "is outside of this worker's roots: add --allow-root" in error.message


def test_a_fuzzed_program_must_be_on_the_list_and_a_strategy_of_its_inputs_too(strict_farm: Any) -> None:
    settings, _ = strict_farm
    error = error_of(settings, FuzzOperation(examples=10, command=["cat", "@@"]))
    assert error.kind is ErrorKind.REJECTED
    assert "program 'cat' is not allowed on this worker: add --allow-command" in error.message
    error = error_of(settings, FuzzOperation(examples=10, command=["echo"], strategy="os:getpid"))
    assert (error.kind, "'os:getpid' is not allowed" in error.message) == (ErrorKind.REJECTED, True)


def test_an_allowed_program_is_fuzzed_whatever_targets_are_allowed(strict_farm: Any) -> None:
    settings, _ = strict_farm

    async def scenario() -> None:
        async with Farm.connect(**settings) as farm:
            fuzz = FuzzOperation(key="it", command=["echo", "@@"], strategy="fuzz_inputs:SMALL", examples=10)
            result = (await (await farm.submit([fuzz])).wait(WAIT_S)).results["it"]
            assert (result.examples, result.findings) == (10, [])

    asyncio.run(scenario())


def test_seeds_inside_of_a_root_are_mutated(strict_farm: Any) -> None:
    settings, root = strict_farm
    (root / "seeds").mkdir(exist_ok=True)
    (root / "seeds" / "one").write_bytes(b"a seed")

    async def scenario() -> None:
        async with Farm.connect(**settings) as farm:
            fuzz = FuzzOperation(key="it", target="farm_targets:echo", inputs=f"seeds:{root}/seeds", examples=50)
            result = (await (await farm.submit([fuzz])).wait(WAIT_S)).results["it"]
            assert result.examples == 50
            assert result.distinct_examples > 10

    asyncio.run(scenario())


def test_a_program_on_no_list_is_refused_however_it_is_spelled(strict_farm: Any) -> None:
    settings, _ = strict_farm
    for command in (["cat", "/etc/hostname"], ["/bin/sh", "-c", "true"], ["../bin/echo"]):
        error = error_of(settings, SubprocessJob(command=command))
        assert error.kind is ErrorKind.REJECTED
        assert "not allowed on this worker: add --allow-command" in error.message or "no program" in error.message


@pytest.mark.parametrize(
    ("name", "reason"),
    [("WORDS", "is not allowed on this worker: add --allow-env"), ("GCONV_PATH", "a job may not set GCONV_PATH")],
)
def test_a_variable_on_no_list_reaches_no_program(strict_farm: Any, name: str, reason: str) -> None:
    settings, _ = strict_farm
    error = error_of(settings, SubprocessJob(command=["env"], env={name: "x"}))
    assert error.kind is ErrorKind.REJECTED
    assert reason in error.message


def test_allowed_programs_run_in_allowed_folders_without_the_hosts_secrets(strict_farm: Any) -> None:
    settings, root = strict_farm

    async def scenario() -> None:
        async with Farm.connect(**settings) as farm:
            jobs = [
                SubprocessJob(key="pwd", command=["pwd"], cwd=str(root)),
                SubprocessJob(key="env", command=["env"], env={"WORD": "given"}),
                CallOperation(key="child", target="farm_targets:environment", isolation="child"),
            ]
            results = (await (await farm.submit(jobs)).wait(WAIT_S)).results
            assert results["pwd"].stdout.strip() == str(root.resolve())
            assert "WORD=given" in results["env"].stdout
            for names in (results["env"].stdout, " ".join(results["child"])):
                assert "SECRET_OF_THE_HOST" not in names
                assert "FUZZFARM_" not in names

    asyncio.run(scenario())


@pytest.mark.parametrize("folder", ["/etc", "{root}/..", "{root}/out", "/"])
def test_a_folder_outside_of_the_roots_is_refused_through_links_too(strict_farm: Any, folder: str) -> None:
    settings, root = strict_farm
    error = error_of(settings, SubprocessJob(command=["pwd"], cwd=folder.format(root=root)))
    assert error.kind is ErrorKind.REJECTED
    assert "is outside of this worker's roots: add --allow-root" in error.message


@pytest.mark.parametrize(
    ("producer_key", "worker_key", "reason"),
    [
        (None, KEY, "the payload is not signed"),
        (OTHER_KEY, KEY, "the payload's signature is wrong"),
        (KEY, None, "the payload is signed and this side has no key"),
    ],
    ids=["unsigned", "other key", "worker without key"],
)
def test_a_payload_that_is_not_signed_as_it_must_be_is_never_executed(
    start_worker: Any,
    farm_settings: Any,
    tmp_path: Path,
    producer_key: str | None,
    worker_key: str | None,
    reason: str,
) -> None:
    """I5. Seen to fail without the check of signatures (`_verified`, `_unsigned` in signing.py): it runs."""
    start_worker(**({"signing_key": worker_key} if worker_key else {}))

    async def scenario() -> None:
        async with Farm.connect(**farm_settings, signing_key=producer_key) as farm:
            batch = await farm.submit([note(tmp_path, "ran")])
            async with asyncio.timeout(WAIT_S):
                while not (status := await batch.status()).done:
                    await asyncio.sleep(0.02)
            assert (status.failed, status.succeeded) == (1, 0)
        async with Farm.connect(**farm_settings, signing_key=worker_key) as reader:
            (error,) = (await reader.batch(batch.key).results()).errors.values()
            assert error.kind is ErrorKind.REJECTED
            assert reason in error.message

    asyncio.run(scenario())
    assert not (tmp_path / "ran").exists()


def test_a_payload_that_is_larger_than_a_worker_takes_is_never_executed(
    start_worker: Any, farm_settings: Any, tmp_path: Path
) -> None:
    start_worker(max_payload_bytes=2_000)

    async def scenario() -> None:
        async with Farm.connect(**farm_settings) as farm:
            large = CallOperation(key="large", target="farm_targets:echo", args=["x" * 2_000])
            batch = await farm.submit([note(tmp_path, "ran"), large])
            (error, _) = (await batch.wait(WAIT_S)).errors.values()
            assert error.kind is ErrorKind.REJECTED
            assert "the limit here is 2,000: set the same FUZZFARM_MAX_PAYLOAD_BYTES on every host" in error.message

    asyncio.run(scenario())
    assert not (tmp_path / "ran").exists()


def test_any_of_several_keys_is_accepted_while_they_are_changed(start_worker: Any, farm_settings: Any) -> None:
    start_worker(signing_key=f"{KEY},{OTHER_KEY}")

    async def scenario() -> None:
        async with Farm.connect(**farm_settings, signing_key=f"{OTHER_KEY},{KEY}") as farm:
            batch = await farm.submit(CallOperation.many("farm_targets:echo", [1]))
            assert (await batch.wait(WAIT_S)).results == {"0": 1}

    asyncio.run(scenario())


def test_a_signed_payload_moved_to_another_batch_is_never_executed(
    start_worker: Any, farm_settings: Any, tmp_path: Path, server_url: str
) -> None:
    from redis import Redis

    async def scenario() -> None:
        async with Farm.connect(**farm_settings, signing_key=KEY) as farm:
            await farm.submit([note(tmp_path, "stolen")], "from")
            other = await farm.submit([note(tmp_path, "own")], "to")
            await asyncio.to_thread(move_payload)
            start_worker(signing_key=KEY)
            aggregate = await other.wait(WAIT_S)
            (error,) = aggregate.errors.values()
            assert error.kind is ErrorKind.REJECTED
            assert "signature is wrong" in error.message

    def move_payload() -> None:
        with Redis.from_url(server_url) as client:
            names = [f"{farm_settings['namespace']}:b:{batch}#p" for batch in ("from", "to")]
            payload: Any = client.hget(names[0], "0")
            assert client.hset(names[1], "0", payload) == 0
            client.delete(names[0])

    asyncio.run(scenario())
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("order", ["none", "unsigned", "of another batch"])
def test_an_order_to_cancel_that_is_not_signed_for_its_batch_stops_nothing(
    start_worker: Any, farm_settings: Any, tmp_path: Path, order: str
) -> None:
    """Seen to fail with `is_ordered` returning True."""

    async def scenario() -> None:
        keys = Keys(farm_settings["namespace"])
        async with (
            Farm.connect(**farm_settings, signing_key=KEY) as farm,
            Redis.from_url(farm_settings["url"]) as client,
        ):
            start_worker(signing_key=KEY, max_concurrency=1)
            operations = [
                CallOperation(key=f"k{n}", target="farm_targets:note_and_wait_for", args=[str(tmp_path), f"k{n}", "go"])
                for n in range(2)
            ]
            batch = await farm.submit(operations)
            meta = keys.batch(batch.key, Part.META)
            submit_id = (await client.hget(meta, "submit")).decode()  # type: ignore[misc]
            forged = {
                "none": b"",
                "unsigned": cancel_order(batch.key, submit_id, Signer()),
                "of another batch": cancel_order("another", submit_id, Signer((KEY.encode(),))),
            }[order]
            async with asyncio.timeout(WAIT_S):
                while not (tmp_path / "k0").exists():
                    await asyncio.sleep(0.01)
            await client.hset(meta, mapping={"stop": "cancelled", "order": forged})  # type: ignore[misc]
            await asyncio.sleep(1.5)  # a renewal, which tells the worker of it
            (tmp_path / "go").touch()
            assert (await batch.wait(WAIT_S)).results == {"k0": "k0", "k1": "k1"}

    asyncio.run(scenario())


def test_keys_are_changed_without_a_stop(start_worker: Any, farm_settings: Any) -> None:
    """Old and new workers and producers side by side: each signs with its first key and accepts all of its keys."""

    async def scenario() -> None:
        async with (
            Farm.connect(**farm_settings, signing_key=f"{KEY},{OTHER_KEY}") as old,
            Farm.connect(**farm_settings, signing_key=f"{OTHER_KEY},{KEY}") as new,
        ):
            for worker_keys in (f"{KEY},{OTHER_KEY}", f"{OTHER_KEY},{KEY}"):
                worker = start_worker(signing_key=worker_keys)
                for farm in (old, new):
                    batch = await farm.submit(CallOperation.many("farm_targets:worker_pid", [0]))
                    assert (await new.batch(batch.key).wait(WAIT_S)).results == {"0": worker.pid}
                    endless = await farm.submit(
                        [CallOperation(target="farm_targets:pause", args=[600.0], timeout_s=None)]
                    )
                    assert await (old if farm is new else new).batch(endless.key).cancel() == 1
                worker.terminate()
                await asyncio.to_thread(worker.wait, 20)

    asyncio.run(scenario())


@pytest.mark.parametrize("what", ["schema", "kind"])
def test_operations_of_a_newer_fuzzfarm_end_as_unsupported(start_worker: Any, farm_settings: Any, what: str) -> None:
    async def scenario() -> None:
        keys = Keys(farm_settings["namespace"])
        async with Farm.connect(**farm_settings) as farm, Redis.from_url(farm_settings["url"]) as client:
            batch = await farm.submit([CallOperation(target="farm_targets:echo")])
            payloads = keys.batch(batch.key, Part.PAYLOADS)
            envelope = await client.hget(payloads, "0")  # type: ignore[misc]
            newer = bytes([99]) + envelope[1:] if what == "schema" else envelope.replace(b"\xa4call", b"\xa4dial")
            assert newer != envelope
            await client.hset(payloads, "0", newer)  # type: ignore[misc]
            start_worker()
            (error,) = (await batch.wait(WAIT_S)).errors.values()
            assert error.kind is ErrorKind.UNSUPPORTED
            assert "upgrade it on this host" in error.message

    asyncio.run(scenario())


@pytest.mark.parametrize("forged", [{"stop": "cancelled"}, {"deadline": "1"}])
def test_a_forged_order_stops_nothing_that_waits(start_worker: Any, farm_settings: Any, forged: dict[str, str]) -> None:
    """Workers look after batches that were told to stop, and settle what waits: not without a true order."""

    async def scenario() -> None:
        keys = Keys(farm_settings["namespace"])
        async with (
            Farm.connect(**farm_settings, signing_key=KEY) as farm,
            Redis.from_url(farm_settings["url"]) as client,
        ):
            batch = await farm.submit([CallOperation(key="it", target="farm_targets:echo", args=[1])])
            await client.hset(keys.batch(batch.key, Part.META), mapping=forged)  # type: ignore[misc]
            await client.zadd(keys.open, {batch.key: 0})
            start_worker(signing_key=KEY)
            assert (await batch.wait(WAIT_S)).results == {"it": 1}

    asyncio.run(scenario())


def test_who_has_no_key_cannot_cancel_and_who_has_it_still_can(start_worker: Any, farm_settings: Any) -> None:
    async def scenario() -> None:
        async with Farm.connect(**farm_settings, signing_key=KEY) as owner, Farm.connect(**farm_settings) as stranger:
            start_worker(signing_key=KEY, max_concurrency=1)
            pause = [
                CallOperation(key=f"k{n}", target="farm_targets:pause", args=[600.0], timeout_s=None) for n in "ab"
            ]
            batch = await owner.submit(pause)
            with pytest.raises(SignatureError, match="FUZZFARM_SIGNING_KEY"):
                await stranger.batch(batch.key).cancel()
            assert (await batch.status()).state == "running"
            assert await batch.cancel() == 2

    asyncio.run(scenario())


def test_processes_of_one_host_do_not_fail_what_another_host_may_run(start_worker: Any, farm_settings: Any) -> None:
    """I5. Seen to fail where refusals of the processes of one host count by themselves."""

    async def scenario() -> None:
        async with Farm.connect(**farm_settings, chunk_operations=50) as farm:
            for _ in range(3):
                start_worker(allow_targets="math", name="bad-host")
            start_worker(max_concurrency=1, name="good-host")
            await until_workers(farm, 4)
            batch = await farm.submit(CallOperation.many("farm_targets:pause", [0.01] * 500))
            status = (await batch.wait(WAIT_S)).status
            assert (status.succeeded, status.failed) == (500, 0)

    asyncio.run(scenario())
