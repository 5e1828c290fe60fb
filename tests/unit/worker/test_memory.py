"""How much memory is free, from the files of made-up systems."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzzfarm_worker.memory import Memory, MemoryPressure

MakeSystem = Callable[[dict[str, str]], Path]

HOST = {"proc/meminfo": "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n"}
"""Memory that is kept only for speed is available: 60 % are free."""


@pytest.fixture
def system(tmp_path: Path) -> MakeSystem:
    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def v2(folder: str, limit: str, used: int = 0, inactive: int = 0) -> dict[str, str]:
    group = f"sys/fs/cgroup{folder}"
    stat = f"anon 1\nfile 2\ninactive_anon 5\ninactive_file {inactive}\nactive_file 3\n"
    return {f"{group}/memory.max": f"{limit}\n", f"{group}/memory.current": f"{used}\n", f"{group}/memory.stat": stat}


def v1(folder: str, limit: int, used: int = 0, inactive: int = 0) -> dict[str, str]:
    group = f"sys/fs/cgroup/memory{folder}"
    return {
        f"{group}/memory.limit_in_bytes": f"{limit}\n",
        f"{group}/memory.usage_in_bytes": f"{used}\n",
        f"{group}/memory.stat": f"inactive_file 999999\ntotal_inactive_file {inactive}\n",
    }


def test_a_host_without_control_groups_tells_what_is_available(system: MakeSystem) -> None:
    assert Memory(system(HOST)).free_share() == 0.6


def test_a_system_without_proc_tells_nothing(tmp_path: Path) -> None:
    assert Memory(tmp_path).free_share() is None


@pytest.mark.parametrize(
    ("cgroup", "files", "free"),
    [
        ("0::/a/b\n", v2("/a/b", "max", 990), 0.6),
        ("0::/a/b\n", v2("/a/b", "1000", 900), 0.1),
        ("0::/a/b\n", v2("/a/b", "1000", 900, inactive=200), 0.3),
        ("0::/a/b\n", v2("/a/b", "1000", 1_100), 0.0),
        ("0::/a/b\n", v2("/a/b", "1000", 100), 0.6),
        ("0::/a/b\n", {**v2("/a/b", "max", 5), **v2("/a", "1000", 750)}, 0.25),
        ("0::/a/b\n", {**v2("/a/b", "1000", 800), **v2("/a", "5000", 4_500)}, 0.1),
        ("0::/\n", v2("", "1000", 750), 0.25),
        ("0::/../elsewhere\n", v2("", "1000", 750), 0.25),
        ("4:memory:/a\n0::/\n", v1("/a", 1_000, 900, inactive=200), 0.3),
        ("4:cpu,memory:/a\n0::/\n", v1("/a", 1_000, 900), 0.1),
        ("4:memory:/a\n0::/\n", v1("/a", 9_223_372_036_854_771_712, 900), 0.6),
        ("4:memory:/docker/abc\n", v1("", 1_000, 900), 0.1),
        ("4:memory:/a\n", {**v1("/a", 1_000, 100), **v1("", 5_000, 4_500)}, 0.1),
        ("5:cpu:/a\n", v1("/a", 1_000, 900), 0.6),
    ],
    ids=[
        "v2 without limit", "v2", "v2 with reclaimable files", "v2 beyond its limit", "v2 with more than the host",
        "v2 limit of a parent", "v2 two limits", "v2 in a container", "v2 moved out of its namespace", "v1",
        "v1 with other controllers", "v1 without limit", "v1 in a container", "v1 limit of a parent", "no memory group",
    ],
)  # fmt: skip
def test_the_scarcest_of_host_and_control_groups_counts(
    system: MakeSystem, cgroup: str, files: dict[str, str], free: float
) -> None:
    memory = Memory(system({**HOST, "proc/self/cgroup": cgroup, **files}))
    assert memory.free_share() == pytest.approx(free)


def test_each_look_sees_the_present(system: MakeSystem) -> None:
    memory = Memory(system({**HOST, "proc/self/cgroup": "0::/a\n", **v2("/a", "1000", 900)}))
    system(v2("/a", "1000", 500))
    assert memory.free_share() == pytest.approx(0.5)
    system({"proc/meminfo": HOST["proc/meminfo"].replace("600", "300")})
    assert memory.free_share() == pytest.approx(0.3)


def test_a_group_that_is_gone_is_left_out(system: MakeSystem) -> None:
    folder = system({**HOST, "proc/self/cgroup": "0::/a\n", **v2("/a", "1000", 900)})
    memory = Memory(folder)
    (folder / "sys/fs/cgroup/a/memory.current").unlink()
    assert memory.free_share() == 0.6


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_this_system_tells() -> None:
    free = Memory().free_share()
    assert free is not None
    assert 0 < free < 1


def pressure_of(system: MakeSystem, reserve: float) -> tuple[MemoryPressure, Callable[[float], bool]]:
    """A watch, and what makes a share of memory free and looks again."""

    def files(free: float) -> dict[str, str]:
        return {"proc/meminfo": f"MemTotal: 10000 kB\nMemAvailable: {round(free * 10_000)} kB\n"}

    pressure = MemoryPressure(reserve, Memory(system(files(1.0))))

    def look(free: float) -> bool:
        system(files(free))
        return pressure.look()

    return pressure, look


def test_pressure_begins_below_the_reserve_and_ends_well_above_it(system: MakeSystem) -> None:
    pressure, look = pressure_of(system, 0.1)
    assert [look(free) for free in (0.5, 0.1, 0.0999, 0.105, 0.1199, 0.12, 0.11)] == [
        False, False, True, True, True, False, False,
    ]  # fmt: skip
    assert (pressure.free_share, pressure.is_on) == (0.11, False)


def test_a_reserve_of_0_is_no_pressure_ever(system: MakeSystem) -> None:
    _, look = pressure_of(system, 0.0)
    assert [look(free) for free in (0.5, 0.0)] == [False, False]


def test_what_is_not_known_is_no_pressure(tmp_path: Path) -> None:
    pressure = MemoryPressure(0.9, Memory(tmp_path))
    assert pressure.look() is False
    assert pressure.free_share is None


def test_pressure_ends_for_a_large_reserve_too(system: MakeSystem) -> None:
    _, look = pressure_of(system, 0.9)
    assert [look(free) for free in (0.89, 0.94, 0.95)] == [True, True, False]


def test_the_log_tells_the_beginning_and_the_end_once(system: MakeSystem, caplog: pytest.LogCaptureFixture) -> None:
    _, look = pressure_of(system, 0.1)
    for free in (0.5, 0.05, 0.04, 0.05, 0.5, 0.5):
        look(free)
    assert caplog.messages == [
        "little memory is free: one chunk at a time free=5.0% reserve=10.0%",
        "enough memory is free again free=50.0%",
    ]
