"""Recorders that outlive their worker: what they tell, who reads them, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_runs import operation

from fuzzfarm_worker.fuzzing import FuzzChildren
from fuzzfarm_worker.fuzzing.interpreter import Interpreter
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.recorder import Cell, Recorder, Recording
from fuzzfarm_worker.fuzzing.recordings import LOCK, STALE_AFTER_S, Dead, Recordings
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.sandbox.cells import SIZE_BYTES, Cells, new_cells

DYING = """
import sys
from pathlib import Path
from fuzzfarm_worker.fuzzing.recorder import Cell, Recorder
from fuzzfarm_worker.fuzzing.recordings import Recordings
from fuzzfarm_worker.sandbox.cells import new_cells
with Recordings(sys.argv[2], Path(sys.argv[1])) as recordings:
    recorders = []
    for start in (10, 50):
        memory, cells = new_cells(recordings.new_file())
        recorders.append(Recorder(cells))
        recorders[-1].begin(start, 0, f"owner {start}")
        recorders[-1].cells[Cell.STARTED] = 1
        recorders[-1].cells[Cell.INDEX] = start
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """A recorder in a file `cells`."""
    memory, cells = new_cells(tmp_path / "cells")
    os.close(memory)
    return Recorder(cells)


def told_by(tmp_path: Path) -> Recording | None:
    return Recording.of((tmp_path / "cells").read_bytes())


def dying(root: Path, farm: str = "farm") -> subprocess.Popen[str]:
    """Start a worker's stand-in that has two children, each of which runs an example."""
    process = subprocess.Popen(
        [sys.executable, "-c", DYING, str(root), farm], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_recorder_tells_what_ran_and_what_the_worker_had_not_taken_in(recorder: Recorder, tmp_path: Path) -> None:
    recorder.begin(100, 0, "batch/0@token")
    assert told_by(tmp_path) is None
    recorder.cells[Cell.STARTED] = 1
    recorder.cells[Cell.INDEX] = 100
    assert told_by(tmp_path) == Recording("batch/0@token", 100, 100)
    recorder.cells[Cell.NEXT] = 101
    assert told_by(tmp_path) == Recording("batch/0@token", 100, 100)
    recorder.cells[Cell.INDEX], recorder.cells[Cell.NEXT] = 107, 107
    assert told_by(tmp_path) == Recording("batch/0@token", 100, 107)
    recorder.cells[Cell.TAKEN_IN] = 105
    assert told_by(tmp_path) == Recording("batch/0@token", 105, 107)
    recorder.cells[Cell.STARTED], recorder.cells[Cell.NEXT] = 0, 108
    assert told_by(tmp_path) == Recording("batch/0@token", 105, 107)
    recorder.end()
    assert told_by(tmp_path) is None


def test_a_recorder_of_a_run_for_nobody_tells_nothing(recorder: Recorder, tmp_path: Path) -> None:
    recorder.begin(5, 0, "somebody")
    recorder.begin(5, 0)
    recorder.cells[Cell.STARTED] = 1
    recorder.cells[Cell.INDEX] = 5
    assert told_by(tmp_path) is None


@given(st.binary(max_size=3 * SIZE_BYTES) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40).map(
    lambda numbers: b"".join(number.to_bytes(8, sys.byteorder, signed=True) for number in numbers)
))  # fmt: skip
def test_a_damaged_recorder_tells_nothing_impossible(page: bytes) -> None:
    told = Recording.of(page)
    assert told is None or (told.owner and 0 <= told.first <= told.last)


def test_only_what_the_dead_left_is_read_until_it_is_forgotten(tmp_path: Path) -> None:
    """Seen to fail without the lock: what a living worker does is told as if it had died."""
    with Recordings("farm", tmp_path) as recordings:
        worker = dying(tmp_path)
        assert list(recordings.of_the_dead()) == []
        kill(worker)
        for _ in range(2):
            [dead] = recordings.of_the_dead()
            told = sorted(dead.recordings(), key=lambda recording: recording.first)
            assert told == [Recording("owner 10", 10, 10), Recording("owner 50", 50, 50)]
        dead.forget()
        assert list(recordings.of_the_dead()) == []
    assert list(tmp_path.iterdir()) == []


def test_one_worker_at_a_time_reads_what_is_left(tmp_path: Path) -> None:
    with Recordings("farm", tmp_path) as one, Recordings("farm", tmp_path) as other:
        kill(dying(tmp_path))
        for _dead in one.of_the_dead():
            assert list(other.of_the_dead()) == []
        assert len(list(other.of_the_dead())) == 1


def test_what_was_left_in_another_farm_is_its_own_until_it_is_old(tmp_path: Path) -> None:
    kill(dying(tmp_path, "another"))
    [left] = tmp_path.iterdir()
    with Recordings("farm", tmp_path) as recordings:
        assert list(recordings.of_the_dead()) == []
        assert left.is_dir()
        long_ago = time.time() - STALE_AFTER_S - 1
        os.utime(left, (long_ago, long_ago))
        assert list(recordings.of_the_dead()) == []
        assert not left.exists()


def test_nothing_else_in_the_root_is_touched(tmp_path: Path) -> None:
    others = tmp_path / "mail"
    others.mkdir()
    (others / LOCK).touch()
    long_ago = time.time() - STALE_AFTER_S - 1
    os.utime(others, (long_ago, long_ago))
    with Recordings("farm", tmp_path) as recordings:
        assert list(recordings.of_the_dead()) == []
    assert (others / LOCK).exists()


@pytest.mark.parametrize("name", [".0123456789ab-0123456789ab", "0123456789ab-0123456789ab"])
def test_what_was_made_or_removed_in_part_is_removed_when_it_is_old(tmp_path: Path, name: str) -> None:
    left = tmp_path / name
    left.mkdir()
    with Recordings("farm", tmp_path) as recordings:
        assert list(recordings.of_the_dead()) == []
        assert left.exists()
        long_ago = time.time() - STALE_AFTER_S - 1
        os.utime(left, (long_ago, long_ago))
        assert list(recordings.of_the_dead()) == []
        assert not left.exists()


def test_a_fork_that_outlives_its_worker_does_not_make_it_look_alive(tmp_path: Path) -> None:
    """Seen to fail without `register_at_fork`."""
    code = f"import os\n{DYING}".replace(
        '    print("ready", flush=True)\n',
        '    if not os.fork():\n        print("ready", flush=True)\n        sys.stdin.read()\n        os._exit(0)\n',
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), "farm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    worker.kill()
    worker.wait()
    with Recordings("farm", tmp_path) as recordings:
        assert len(list(recordings.of_the_dead())) == 1
    worker.communicate()  # the fork ends with its input


@pytest.mark.parametrize("what", ["no folder", "somebody else's"])
def test_without_a_folder_recorders_are_in_memory_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    root = tmp_path / "root"
    if what == "no folder":
        root.write_text("a file")
    else:
        monkeypatch.setattr(os, "getuid", lambda: root.parent.stat().st_uid + 1)
    with caplog.at_level(logging.WARNING), Recordings("farm", root) as recordings:
        assert recordings.new_file() is None
        assert list(recordings.of_the_dead()) == []
    assert "nobody will know what ran should this worker die" in caplog.text


def test_cells_that_no_file_can_hold_are_in_memory(tmp_path: Path) -> None:
    memory, cells = new_cells(tmp_path / "nowhere" / "cells")
    cells.numbers[0] = 7
    assert Cells(memory).numbers[0] == 7
    cells.close()
    os.close(memory)


def test_cells_for_which_a_full_file_system_has_no_room_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail where the file is used all the same: a store into it would kill the worker."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "posix_fallocate", full)
    memory, cells = new_cells(tmp_path / "cells")
    cells.numbers[0] = 7
    assert Cells(memory).numbers[0] == 7
    assert list(tmp_path.iterdir()) == []
    cells.close()
    os.close(memory)


def test_cells_that_are_still_written_to_lose_their_file_and_stay(tmp_path: Path) -> None:
    memory, cells = new_cells(tmp_path / "cells")
    os.close(memory)
    cells.remove_file()
    assert list(tmp_path.iterdir()) == []
    cells.numbers[0] = 7
    cells.close()


def test_a_child_has_its_recorder_in_a_file_for_as_long_as_it_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        with Recordings("farm", tmp_path) as recordings:
            async with ProcessManager() as processes, Nursery(processes, recordings=recordings) as nursery:
                [folder] = tmp_path.iterdir()
                child = await nursery.child(Target("fuzzing_subjects:passes", None), Restrictions())
                assert sorted(path.name for path in folder.iterdir()) == ["0", "lock"]
                await child.close()
                assert [path.name for path in folder.iterdir()] == ["lock"]

    asyncio.run(main())


class WatchedNursery(Nursery):
    """Notes what the recorders in a folder tell whenever a child is asked for."""

    def __init__(self, processes: ProcessManager, recordings: Recordings, root: Path) -> None:
        super().__init__(processes, recordings=recordings)
        self.root = root
        self.told: list[list[Recording]] = []

    async def child(self, target: Target, restrictions: Restrictions) -> Interpreter:
        self.told.append(told_in(self.root))
        return await super().child(target, restrictions)


def told_in(root: Path) -> list[Recording]:
    [folder] = root.iterdir()
    return Dead(folder).recordings()


@pytest.mark.parametrize("isolation", ["child", "none"])
def test_a_shard_is_recorded_for_its_owner_while_it_runs_and_not_afterwards(
    tmp_path: Path, isolation: Literal["child", "none"]
) -> None:
    fuzz = operation("fuzzing_subjects:passes", isolation=isolation)

    async def main() -> None:
        with Recordings("farm", tmp_path) as recordings:
            async with (
                ProcessManager() as processes,
                FuzzChildren(processes, 1, nursery=Nursery(processes, recordings=recordings)) as children,
            ):
                shard = children.run_shard(fuzz, 0, 10**9, owner="me")
                async with aclosing(shard):
                    for _ in range(4):
                        progress = await anext(shard)
                    [told] = told_in(tmp_path)
                    assert told.owner == "me"
                    assert 0 < progress.next_index <= told.first <= told.last
                assert told_in(tmp_path) == []
                async for progress in children.run_shard(fuzz, 0, 20, owner="me"):
                    assert progress.next_index <= 20
                assert told_in(tmp_path) == []
                assert children.started == 1

    asyncio.run(main())


def test_an_example_that_killed_its_child_is_not_recorded_any_more(tmp_path: Path) -> None:
    async def main() -> None:
        with Recordings("farm", tmp_path) as recordings:
            async with ProcessManager() as processes:
                nursery = WatchedNursery(processes, recordings, tmp_path)
                async with FuzzChildren(processes, 1, nursery=nursery) as children:
                    shard = operation("fuzzing_subjects:dies_when_smaller")
                    deaths = sum(
                        [one.result.children_replaced async for one in children.run_shard(shard, 0, 100, owner="me")]
                    )
                    assert deaths > 0
                    assert nursery.told == [[]] * (deaths + 1)

    asyncio.run(main())
