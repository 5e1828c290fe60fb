"""How much memory this process holds, and how much is free for it: on its host, and in its control groups."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzzfarm_shared.log import get_logger

EASED_AT = 1.2
"""Pressure ends when this many times the reserve is free, so that it does not come and go at the edge; of a large
reserve, half way to all."""

log = get_logger(__name__)


def resident_bytes() -> int:
    """Return the resident set of this process in bytes; where the system tells only its peak, that."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True, slots=True)
class GroupFiles:
    """What the two versions of control groups call the same things.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files and, of version 1,
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
    """

    limit: str
    usage: str
    reclaimable: str


V1 = GroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = GroupFiles("memory.max", "memory.current", "inactive_file")


UNLIMITED = 1 << 62
"""Version 1 writes the largest number of whole pages for no limit: nearly 2^63."""


@dataclass(frozen=True, slots=True)
class LimitedGroup:
    """A control group that may not hold more memory than `limit_bytes`."""

    folder: Path
    files: GroupFiles
    limit_bytes: int

    def free_share(self) -> float | None:
        """Return the share of the limit that is free; files that are kept in memory only for speed count as free."""
        try:
            used = int((self.folder / self.files.usage).read_text())
            counters = (self.folder / "memory.stat").read_text()
        except OSError:
            return None  # the process was moved to another group
        used -= _field(counters, self.files.reclaimable) or 0
        return min(1.0, max(0.0, 1 - used / self.limit_bytes))


class Memory:
    """The memory that this process may use.

    Limits are read once, so that a look costs one file, and two for each control group with a limit.

    Args:
        system: the folder that holds `proc` and `sys`.
    """

    def __init__(self, system: Path = Path("/")) -> None:
        self._meminfo = system / "proc" / "meminfo"
        self._groups = list(_limited_groups(system))

    def free_share(self) -> float | None:
        """Return the share that is free, 0 to 1: of the host, or of the control group that is closest to its limit.

        None where the system does not tell.
        """
        shares = [self._free_on_host(), *(group.free_share() for group in self._groups)]
        return min((share for share in shares if share is not None), default=None)

    def _free_on_host(self) -> float | None:
        try:
            text = self._meminfo.read_text()
        except OSError:
            return None
        total, available = _field(text, "MemTotal:"), _field(text, "MemAvailable:")
        return available / total if total and available is not None else None


class MemoryPressure:
    """Whether less memory is free than must stay free; says so in the log when that begins and ends.

    Args:
        reserve: the share that must stay free, 0 to 1; 0: there is never pressure.
        memory: what is looked at.
    """

    def __init__(self, reserve: float, memory: Memory) -> None:
        self._reserve = reserve
        self._memory = memory
        self.free_share: float | None = None
        self.is_on = False

    def look(self) -> bool:
        """Read how much is free now, and return whether there is pressure; called once a second."""
        self.free_share = free = self._memory.free_share()
        needed = min(self._reserve * EASED_AT, (1 + self._reserve) / 2) if self.is_on else self._reserve
        is_on = free is not None and free < needed
        if is_on != self.is_on:
            self.is_on = is_on
            self._tell()
        return is_on

    def _tell(self) -> None:
        free = "unknown" if self.free_share is None else f"{self.free_share:.1%}"
        if self.is_on:
            log.warning("little memory is free: one chunk at a time", free=free, reserve=f"{self._reserve:.1%}")
        else:
            log.warning("enough memory is free again", free=free)


def _limited_groups(system: Path) -> Iterator[LimitedGroup]:
    """Yield the groups around this process that have a limit: its own and those that this one is in."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounts = system / "sys/fs/cgroup"
    for line in lines:  # hierarchy:controllers:path, see cgroups(7)
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield from _limits(mounts / "memory", path, V1)
        elif not controllers:
            yield from _limits(mounts, path, V2)


def _limits(mount: Path, path: str, files: GroupFiles) -> Iterator[LimitedGroup]:
    """Yield the limits along `path`; in a container the first folders of it may be missing below its `mount`."""
    names = path.strip("/").split("/")
    for depth in range(len(names), -1, -1):
        folder = mount.joinpath(*names[:depth])
        try:
            limit = (folder / files.limit).read_text().strip()
        except OSError:
            continue
        if limit.isdecimal() and 0 < int(limit) < UNLIMITED:
            yield LimitedGroup(folder, files, int(limit))


def _field(text: str, name: str) -> int | None:
    """Return the number behind `name` at the beginning of a line."""
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), None)
