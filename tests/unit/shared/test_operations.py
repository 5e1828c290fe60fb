from __future__ import annotations

import datetime
import functools
import re
from typing import Any

import pytest
from pydantic import ValidationError

from fuzzfarm_shared.errors import InvalidOperationError, TargetError
from fuzzfarm_shared.limits import MAX_CPU_S, MIN_PROGRAM_MEMORY_BYTES
from fuzzfarm_shared.operations import (
    DEFAULT_EXAMPLES,
    MIN_MEMORY_BYTES,
    CallOperation,
    FuzzOperation,
    Operation,
    ProcessLimits,
    SubprocessJob,
)
from fuzzfarm_shared.targets import MAX_TARGET_CHARS, import_target, target_name


class Calculator:
    def add(self, one: int) -> int:
        return one

    @classmethod
    def make(cls) -> Calculator:
        return cls()

    @staticmethod
    def double(one: int) -> int:
        return 2 * one


class Child(Calculator):
    pass


def plain(one: int) -> int:
    return one


@functools.lru_cache
def cached(one: int) -> int:
    return one


def replaced() -> None: ...


original, replaced = replaced, plain  # type: ignore[assignment]


@pytest.mark.parametrize(
    "target",
    [plain, cached, Calculator, Calculator.add, Calculator.make, Calculator.double, datetime.datetime, re.compile, len],
)
def test_what_can_be_imported_by_name_is_sent_by_name(target: Any) -> None:
    name = CallOperation(target=target).target
    assert import_target(name) == target


def script_function() -> None: ...


script_function.__module__ = "__main__"


def closure() -> Any:
    return lambda: 0


def inner() -> Any:
    def function() -> None: ...

    return function


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda: 0, "is a lambda and no worker can import it: move it to the top level of a module"),
        (closure(), "is a lambda"),
        (inner(), "is defined inside another function and no worker can import it"),
        (script_function, "lives in the script being run, which workers cannot import: move it to a module"),
        (functools.partial(plain, 1), "has no name to import it by: define a function in a module"),
        (Calculator().add, "is bound to"),
        (Child.make, "is bound to"),
        (original, "is not what that name imports"),
        ("os.path.join", "is no target: write 'module:function' or 'module:Class.method'"),
        ("mod:", "is no target"),
        (":f", "is no target"),
        ("mod:a.b.c", "is no target"),
        ("mod:f\n", "is no target"),
        ("../mod:f", "is no target"),
        ("m" * 600 + ":f", "is no target"),
    ],
    ids=lambda part: part[:40] if isinstance(part, str) else type(part).__name__,
)
def test_what_cannot_be_imported_by_name_says_what_to_do(target: Any, message: str) -> None:
    with pytest.raises(TargetError, match=re.escape(message)):
        target_name(target)
    with pytest.raises(InvalidOperationError, match=re.escape(message)):
        CallOperation(target=target)
    with pytest.raises(InvalidOperationError, match=re.escape(message)):
        FuzzOperation(target="mod:f", strategy=target)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:f", "cannot import module 'no_such_module'"),
        ("os:no_such_name", "module 'os' has no 'no_such_name': check the spelling"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else type(value).__name__,
)
def test_a_target_that_is_not_there_says_what_is_missing(name: str, message: str) -> None:
    with pytest.raises(TargetError, match=re.escape(message)) as caught:
        import_target(name)
    assert caught.value.target == name
    assert caught.value.__cause__ is not None


CALL: dict[str, Any] = {"target": "mod:f"}
JOB: dict[str, Any] = {"command": ["ls"]}
NO_CHILD: dict[str, Any] = {"isolation": "none"}


@pytest.mark.parametrize(
    ("cls", "fields", "where"),
    [
        (CallOperation, {**CALL, "unknown": 1}, "unknown"),
        (CallOperation, {}, "target"),
        (CallOperation, {"target": 5}, "target"),
        (CallOperation, {**CALL, "args": "text"}, "args"),
        (CallOperation, {**CALL, "kwargs": []}, "kwargs"),
        (CallOperation, {**CALL, "kwargs": {1: 2}}, "kwargs"),
        (CallOperation, {**CALL, "isolation": "host"}, "isolation"),
        (CallOperation, {**CALL, "key": ""}, "key"),
        (CallOperation, {**CALL, "key": "k" * 513}, "key"),
        (CallOperation, {**CALL, "timeout_s": 0}, "timeout_s"),
        (CallOperation, {**CALL, "timeout_s": float("nan")}, "timeout_s"),
        (CallOperation, {**CALL, "timeout_s": float("inf")}, "timeout_s"),
        (CallOperation, {**CALL, "timeout_s": 10**9}, "timeout_s"),
        (CallOperation, {**CALL, "retries": -1}, "retries"),
        (CallOperation, {**CALL, "retries": 1_001}, "retries"),
        (CallOperation, {**CALL, "retry_delay_s": -1}, "retry_delay_s"),
        (SubprocessJob, {"command": []}, "command"),
        (SubprocessJob, {"command": "ls -l"}, "command"),
        (SubprocessJob, {"command": ["ls\0"]}, "remove it"),
        (SubprocessJob, {**JOB, "max_output_bytes": 10**10}, "max_output_bytes"),
        (SubprocessJob, {**JOB, "cwd": "a\0b"}, "remove it"),
        (SubprocessJob, {**JOB, "env": {"A\0": "b"}}, "remove it"),
        (SubprocessJob, {**JOB, "env": {"A": "b\0"}}, "remove it"),
        (SubprocessJob, {**JOB, "limits": {"memory_bytes": MIN_PROGRAM_MEMORY_BYTES - 1}}, "memory_bytes"),
        (SubprocessJob, {**JOB, "limits": {"cpu_s": MAX_CPU_S + 1}}, "cpu_s"),
        (SubprocessJob, {**JOB, "limits": {"open_files": 2**64}}, "open_files"),
        (SubprocessJob, {**JOB, "limits": {"unknown": 1}}, "unknown"),
        (SubprocessJob, {**JOB, "shell": True}, "shell"),
        (FuzzOperation, {}, "there is nothing to fuzz: give a target, or a command"),
        (FuzzOperation, {"target": "command: ls"}, "there is nothing to fuzz: give a target, or a command"),
        (FuzzOperation, {**CALL, **JOB}, "give target or command, not both"),
        (FuzzOperation, {"command": []}, "command"),
        (FuzzOperation, {"command": ["ls\0"]}, "remove it"),
        (FuzzOperation, {**JOB, "crash_exit_codes": [0]}, "crash_exit_codes"),
        (FuzzOperation, {**CALL, "crash_exit_codes": [1]}, "crash_exit_codes are those of a command"),
        (FuzzOperation, {**CALL, "examples": 0}, "examples"),
        (FuzzOperation, {**CALL, "examples": 5, "time_s": 1}, "give examples or time_s, not both"),
        (FuzzOperation, {**CALL, "seed": -1}, "seed"),
        (FuzzOperation, {**CALL, "seed": 2**63}, "seed"),
        (FuzzOperation, {**CALL, "isolation": "worker"}, "isolation"),
        (FuzzOperation, {**CALL, "limits": {"cpu_s": 0}}, "cpu_s"),
        (FuzzOperation, {**CALL, "limits": {"processes": 0}}, "processes"),
        (FuzzOperation, {**CALL, "limits": {"memory_bytes": MIN_MEMORY_BYTES - 1}}, "the child is an interpreter"),
        (FuzzOperation, {**CALL, "limits": {"file_size_bytes": 1_000}}, "what the child prints is a file, too"),
        (FuzzOperation, {**CALL, **NO_CHILD, "limits": {"cpu_s": 1}}, "limits needs a process apart"),
        (FuzzOperation, {**CALL, **NO_CHILD, "network": False}, "network needs a process apart"),
        (FuzzOperation, {**CALL, **NO_CHILD, "stateless": True}, "stateless needs a process apart"),
        (FuzzOperation, {**JOB, **NO_CHILD}, "command needs a process apart.*leave it out, or isolation='none'"),
    ],
    ids=lambda part: repr(part)[:50],
)
def test_an_operation_that_cannot_be_right_is_refused(cls: type[Operation], fields: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidOperationError, match=where):
        cls(**fields)


def test_operations_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CallOperation(**CALL).retries = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        ProcessLimits().cpu_s = 3  # type: ignore[misc]


def test_a_fuzz_operation_has_one_budget() -> None:
    assert FuzzOperation(**CALL).examples == DEFAULT_EXAMPLES
    assert FuzzOperation(**CALL, time_s=2).examples is None
    assert FuzzOperation(**CALL).timeout_s is None


def test_a_command_is_named_as_a_shell_would_be_given_it() -> None:
    assert FuzzOperation(command=["./parser", "a b", "@@"]).target == "command: ./parser 'a b' @@"
    long, other = (FuzzOperation(command=["./parser", "x" * 1_000, last]).target for last in ("a", "b"))
    assert len(long) <= MAX_TARGET_CHARS
    assert long != other


def test_a_command_keeps_its_name_on_the_way() -> None:
    operation = FuzzOperation(command=["cat", "@@"], crash_exit_codes=[3])
    again = FuzzOperation(**operation.model_dump())
    assert again == operation
    assert again.inputs == "bytes"


def test_a_group_reads_its_items_lazily() -> None:
    def items() -> Any:
        yield 1
        raise AssertionError("read too far")

    assert next(CallOperation.many("mod:f", items()).arguments()) == [1]
    assert list(CallOperation.many("mod:f", [(1, 2)], star=True).arguments()) == [[1, 2]]


def test_a_fuzz_operation_refuses_retries() -> None:
    with pytest.raises(InvalidOperationError, match="a fuzz operation has no retries"):
        FuzzOperation(target="mod:f", retries=1)
