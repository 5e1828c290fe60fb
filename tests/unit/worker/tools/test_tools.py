"""The tools for real, as a library uses them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from analysed_files import PROGRAM, RULES, needs
from hypothesis import given
from hypothesis import strategies as st

from fuzzfarm_worker import (
    ProcessManager,
    run_binwalk_async,
    run_radare2_async,
    run_strings_async,
    run_yara_with_progress,
)
from fuzzfarm_worker.tools import (
    INPUT,
    Tool,
    ToolFailedError,
    ToolInputError,
    ToolMissingError,
    YaraMatch,
    YaraProgress,
    confined,
    register,
    run_tool,
    tool_metrics,
    tools,
)
from fuzzfarm_worker.tools.yara import MatchCounter


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(PROGRAM)
    return path


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yar"
    path.write_text(RULES)
    return path


@needs("strings")
def test_strings_are_found_in_order_and_counted(program: Path) -> None:
    result = asyncio.run(run_strings_async(str(program), min_length=10))
    assert (result.strings, result.truncated, result.output_bytes) == (["a printable text"], False, 17)
    cut = asyncio.run(run_strings_async(program, min_length=10, max_output_size=5))
    assert (cut.strings, cut.truncated, cut.output_bytes) == (["a pri"], True, 17)


@needs("strings")
def test_many_tools_run_at_once_through_one_manager(program: Path) -> None:
    async def main() -> None:
        async with ProcessManager() as processes, confined(processes, [program.parent]):
            results = await asyncio.gather(*(run_strings_async(program, 10) for _ in range(20)))
            assert [result.strings for result in results] == [["a printable text"]] * 20
            assert (await processes.get_stats())["started"] == 20

    asyncio.run(main())


@needs("binwalk")
def test_binwalk_finds_a_file_inside_of_another(program: Path) -> None:
    found = {
        signature.offset: signature.description for signature in asyncio.run(run_binwalk_async(program)).signatures
    }
    assert "gzip compressed data" in found[PROGRAM.index(b"\x1f\x8b")]


@needs("yara")
def test_yara_tells_rules_tags_strings_and_its_progress(program: Path, rules: Path) -> None:
    told: list[YaraProgress] = []

    async def note(progress: YaraProgress) -> None:
        told.append(progress)

    result = asyncio.run(run_yara_with_progress(program, rules, note))
    strings = [(0, "$magic"), (PROGRAM.index(b"printable"), "$text")]
    assert result.matches == [YaraMatch("program", ["exe", "small"], strings)]
    assert (told[-1].matches, told[-1].done) == (1, True)
    assert [progress.done for progress in told[:-1]] == [False] * (len(told) - 1)


@needs("yara")
def test_a_callback_that_fails_does_not_stop_the_scan(program: Path, rules: Path) -> None:
    def fail(_: YaraProgress) -> None:
        raise RuntimeError("of the callback")

    assert len(asyncio.run(run_yara_with_progress(program, rules, fail)).matches) == 1


@needs("yara")
@pytest.mark.parametrize(
    "include", ['include "other.yar"', 'include\t"other.yar"', 'include /* x */ "o"', 'import "pe" include//\n"o"']
)
def test_rules_that_include_other_files_are_refused(program: Path, rules: Path, include: str) -> None:
    rules.write_text(f"{include}\n{RULES}")
    with pytest.raises(ToolInputError, match="includes other files"):
        asyncio.run(run_yara_with_progress(program, rules))


@given(st.lists(st.sampled_from(["rule", "string", "other"])), st.integers(1, 200))
def test_matches_are_counted_however_output_comes_in_pieces(kinds: list[str], size: int) -> None:
    lines = {"rule": "name [tag,é] /dev/stdin\n", "string": "0x1f:$a: name [] /dev/stdin\n", "other": "name [] /x\n"}
    output = "".join(lines[kind] for kind in kinds).encode()
    counter = MatchCounter()
    for at in range(0, len(output), size):
        counter.take("stdout", memoryview(output[at : at + size]))
        counter.take("stderr", memoryview(output[at : at + size]))
    assert counter.matches == kinds.count("rule")


@needs("yara")
def test_rules_that_do_not_compile_are_told_in_words_of_yara(program: Path, rules: Path) -> None:
    rules.write_text("rule wrong { condition: nonsense }")
    with pytest.raises(ToolFailedError, match=r'rules\.yar\(1\): undefined identifier "nonsense"'):
        asyncio.run(run_yara_with_progress(program, rules))


@needs("r2")
def test_radare2_reads_the_structure_of_a_program() -> None:
    assert "elf" in asyncio.run(run_radare2_async("/bin/ls", "iI")).text


def test_a_tool_that_is_not_there_says_how_to_install_it(program: Path) -> None:
    tool = Tool("no-such-tool", install="apt install it")
    with pytest.raises(ToolMissingError, match="no-such-tool is not installed on this host: apt install it"):
        asyncio.run(run_tool(tool, [INPUT], file_path=program))


def test_an_own_tool_is_a_few_lines(program: Path) -> None:
    count = register(Tool("count-of-a-test", install="it is always there", program="wc"))
    assert tools()["count-of-a-test"] is count
    output = asyncio.run(run_tool(count, ["-c"], file_path=program))
    assert int(output.text) == len(PROGRAM)
    assert register(Tool("count-of-a-test", install="it is always there", program="wc")) == count
    with pytest.raises(ValueError, match="there is a tool 'count-of-a-test' already"):
        register(Tool("count-of-a-test", install="elsewhere"))


def test_a_tool_that_fails_or_takes_too_long_is_an_error() -> None:
    shell = Tool("shell", install="-", program="sh")
    with pytest.raises(ToolFailedError, match="shell ended with exit code 3: oops"):
        asyncio.run(run_tool(shell, ["-c", "echo oops >&2; exit 3"]))
    with pytest.raises(TimeoutError, match=r"shell took longer than 0\.1 s and was killed"):
        asyncio.run(run_tool(shell, ["-c", "sleep 1000"], timeout=0.1))


def test_cancelling_kills_a_tool_with_all_that_it_started(tmp_path: Path) -> None:
    shell = Tool("shell", install="-", program="sh")
    script = f"setsid sh -c 'echo $$ > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/pid && exec sleep 1000' & wait"

    async def main() -> int:
        running = asyncio.create_task(run_tool(shell, ["-c", script]))
        while not (tmp_path / "pid").exists():
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        return int((tmp_path / "pid").read_text())

    grandchild = asyncio.run(main())
    with pytest.raises(ProcessLookupError):
        os.kill(grandchild, 0)


@pytest.mark.parametrize("name", ["nothing", "folder", "pipe", "a\0b"])
def test_what_is_no_readable_file_is_refused_before_anything_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ToolInputError, match="cannot read"):
        asyncio.run(run_strings_async(f"{tmp_path}/{name}"))


@needs("strings")
def test_no_link_leads_out_of_the_folders(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "inside-not"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file").write_bytes(PROGRAM)
    (inside / "link").symlink_to(outside / "file")
    (inside / "folder").symlink_to(outside)
    (inside / "good").symlink_to(inside / "file")

    async def refused(path: Any) -> bool:
        try:
            await run_strings_async(path)
        except ToolInputError as exc:
            return "outside of the folders" in str(exc)
        return False

    async def main() -> None:
        async with confined(roots=[inside]):
            assert not await refused(inside / "file")
            assert not await refused(inside / "good")
            for path in (outside / "file", inside / "link", inside / "folder" / "file", f"{inside}/../inside-not/file"):
                assert await refused(path), path
        assert not await refused(outside / "file")

    asyncio.run(main())


@needs("strings")
def test_a_name_that_looks_like_an_option_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "--version").write_bytes(PROGRAM)
    assert asyncio.run(run_strings_async("--version", 10)).strings == ["a printable text"]


@needs("strings")
def test_calls_errors_and_times_of_a_tool_are_counted(program: Path) -> None:
    async def main() -> None:
        for _ in range(3):
            await run_strings_async(program)
        with pytest.raises(ToolInputError):
            await run_strings_async("/nowhere")

    asyncio.run(main())
    numbers = tool_metrics()["strings"]
    assert (numbers.calls, numbers.errors, numbers.cancelled) == (4, 1, 0)
    assert 0 < numbers.p50_s <= numbers.p95_s <= numbers.max_s <= numbers.total_s
