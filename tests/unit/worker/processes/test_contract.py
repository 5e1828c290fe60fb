"""What others rely on: names, parameters and defaults of the process classes, and what starting promises."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from children import SLEEPS

from fuzzfarm_worker import (
    ProcessConfig,
    ProcessManager,
    ProcessWatchdog,
    WatchdogConfig,
    execute_subprocess_async,
    execute_subprocess_streaming,
    stream_subprocess,
)
from fuzzfarm_worker.processes import CommandSpec, ProcessStartError

MANAGER = {
    "create_with_config": "(config=None)",
    "start_process": "(self, config)",
    "stop_process": "(self, pid, force=False)",
    "stop_all_processes": "(self, force=False)",
    "get_process_status": "(self, pid)",
    "list_processes": "(self)",
    "wait_for_process": "(self, pid, timeout=None)",
    "update_activity": "(self, pid)",
    "get_stats": "(self)",
    "cleanup_finished_processes": "(self)",
    "send_timeout_signal": "(self, pid, signal_type)",
    "send_timeout_signal_to_all": "(self, signal_type)",
    "shutdown": "(self)",
}
WATCHDOG = {
    "start": "(self)",
    "stop": "(self)",
    "unregister_process": "(self, pid)",
    "update_activity": "(self, pid)",
    "is_process_registered": "(self, pid)",
    "get_stats": "(self)",
}


def signature_of(function: Any) -> str:
    """Names and defaults, without types."""
    signature = inspect.signature(function)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize("name", MANAGER)
def test_the_manager_has_the_members_of_the_contract(name: str) -> None:
    assert signature_of(getattr(ProcessManager, name)) == MANAGER[name]


@pytest.mark.parametrize("name", WATCHDOG)
def test_the_watchdog_has_the_members_of_the_contract(name: str) -> None:
    assert signature_of(getattr(ProcessWatchdog, name)) == WATCHDOG[name]


def test_a_process_is_registered_with_the_parameters_of_the_contract() -> None:
    parameters = list(inspect.signature(ProcessWatchdog.register_process).parameters)
    assert parameters[:5] == ["self", "pid", "process", "activity_callback", "name"]
    assert next(iter(inspect.signature(ProcessManager).parameters.values())).default is None
    assert next(iter(inspect.signature(ProcessWatchdog).parameters.values())).default is None


def test_configurations_have_the_fields_and_defaults_of_the_contract() -> None:
    config = ProcessConfig(command=["true"])
    named = ("cwd", "env", "timeout", "auto_kill", "name", "activity_callback")
    assert [field.name for field in fields(ProcessConfig)][:7] == ["command", *named]
    assert [getattr(config, name) for name in named] == [None, None, 30.0, True, "unknown", None]
    watchdog = WatchdogConfig()
    values = [getattr(watchdog, field.name) for field in fields(WatchdogConfig)]
    assert dict(zip([field.name for field in fields(WatchdogConfig)], values, strict=True)) == {
        "check_interval": 1.0,
        "process_timeout": 30.0,
        "extra_buffer": 5.0,
        "max_hang_time": 60.0,
        "auto_kill": True,
    }


@pytest.mark.parametrize("function", [execute_subprocess_async, execute_subprocess_streaming])
def test_single_commands_have_the_parameters_of_the_contract(function: Any) -> None:
    assert signature_of(function) == "(cmd, max_output_size=10000000, timeout=300)"
    assert signature_of(stream_subprocess).startswith("(cmd, max_output_size=10000000, timeout=300, *")


def test_a_status_has_the_keys_of_the_contract_through_the_life_of_a_process() -> None:
    async def main() -> None:
        async with ProcessManager() as manager:
            kept = await manager.start_process(ProcessConfig(command=SLEEPS, name="kept"))
            ended = await manager.start_process(ProcessConfig(command=["true"]))
            assert await manager.wait_for_process(ended.pid) == 0
            statuses = {status["pid"]: status for status in await manager.list_processes()}
            assert {"pid", "name", "command", "status", "started_at", "exit_code"} <= set(statuses[kept.pid])
            assert [statuses[pid]["status"] for pid in (kept.pid, ended.pid)] == ["running", "finished"]
            assert await manager.stop_process(kept.pid, force=True)
            status = await manager.get_process_status(kept.pid)
            assert status is not None
            assert (status["name"], status["status"], status["exit_code"]) == ("kept", "stopped", -9)
            assert await manager.cleanup_finished_processes() == 2
            assert await manager.get_process_status(kept.pid) is None

    asyncio.run(main())


def test_a_program_that_ends_at_once_is_no_start_error() -> None:
    async def main() -> None:
        async with ProcessManager() as manager:
            for code in range(20):
                process = await manager.start_process(ProcessConfig(command=["sh", "-c", f"exit {code}"]))
                assert await process.wait() == code

    asyncio.run(main())


BAD_STARTS = {
    "no such program": ({"command": ["/no/such/program"]}, FileNotFoundError),
    "not executable": ({"command": ["{file}"]}, PermissionError),
    "no such folder": ({"command": ["true"], "cwd": "/no/such/folder"}, FileNotFoundError),
    "folder is a file": ({"command": ["true"], "cwd": "{file}"}, NotADirectoryError),
    "bad variable": ({"command": ["true"], "env": {"A=B": "x"}}, None),
    "bad value": ({"command": ["true"], "env": {"A": "x\0"}}, None),
    "no command": ({"command": []}, None),
    "no text": ({"command": ["sleep", 1]}, None),
}


@pytest.mark.parametrize("way", ["start_process", "run"])
@pytest.mark.parametrize("case", BAD_STARTS)
def test_whatever_is_wrong_with_a_start_is_one_error_with_its_cause(case: str, way: str, tmp_path: Path) -> None:
    given, cause = BAD_STARTS[case]
    file = tmp_path / "file"
    file.write_text("no program")
    options = {
        name: value.format(file=file)
        if isinstance(value, str)
        else [part.format(file=file) if isinstance(part, str) else part for part in value]
        if isinstance(value, list)
        else value
        for name, value in given.items()
    }

    async def main() -> None:
        async with ProcessManager() as manager:
            start = (
                manager.run(CommandSpec(**options)) if way == "run" else manager.start_process(ProcessConfig(**options))
            )
            with pytest.raises(ProcessStartError) as caught:
                await start
            assert "\n" not in str(caught.value)
            assert cause is None or isinstance(caught.value.__cause__, cause)
            assert await manager.list_processes() == []

    asyncio.run(main())


@pytest.mark.parametrize("way", ["start_process", "run"])
def test_a_start_that_a_shutdown_overtakes_leaves_nothing(way: str, tmp_path: Path) -> None:
    async def main() -> None:
        command = ["sh", "-c", f"touch {tmp_path}/started; exec sleep 1000"]
        for _ in range(20):
            manager = ProcessManager()
            await manager.run(CommandSpec(command=["true"]))  # its guardian is there
            if way == "run":
                starting = asyncio.create_task(manager.run(CommandSpec(command=command)))
            else:
                starting = asyncio.create_task(manager.start_process(ProcessConfig(command=command)))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            await manager.shutdown()
            with pytest.raises(RuntimeError, match="was shut down"):
                await starting
            assert all(status["status"] != "running" for status in await manager.list_processes())

    asyncio.run(asyncio.wait_for(main(), 60))
