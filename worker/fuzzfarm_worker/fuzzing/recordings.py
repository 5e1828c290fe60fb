"""Recordings: the recorders of a worker's children as files of its host, which tell what ran when the worker died.

    <memory of the host>/fuzzfarm-<user>/<farm>-<random>/lock     held by the worker for as long as it lives
                                                        /0, 1...  the recorders of its children

Any worker of the same farm on the same host reads what a dead one has left, tells the farm, and removes it. A host that
goes down takes its recordings with it, and so does a container: then nobody knows what ran.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from fuzzfarm_shared.log import get_logger
from fuzzfarm_worker.fuzzing.recorder import Recording

LOCK = "lock"

STALE_AFTER_S = 86_400.0
"""What nobody will read, of dead workers of other farms or made in part, is removed after this."""

_NAME = re.compile(r"\.?[0-9a-f]{12}-[0-9a-f]{12}")
"""Of our folders; nothing else in the root is touched."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Dead:
    """What a dead worker has left.

    Attributes:
        folder: where it is.
    """

    folder: Path

    def recordings(self) -> list[Recording]:
        """Return what its recorders tell of the runs that it had not ended."""
        files = (file for file in self.folder.iterdir() if file.name != LOCK and file.is_file())
        told = (Recording.of(file.read_bytes()) for file in files)
        return [recording for recording in told if recording is not None]

    def forget(self) -> None:
        """Remove it."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Recordings:
    """The recorders of one worker, and those that dead workers have left beside them; use it as a context.

    Where the host gives no folder for them, there are none, and nothing else changes.
    """

    def __init__(self, farm: str, root: Path | None = None) -> None:
        """Make them for a worker of `farm`; `root` is the folder of all workers of this user by default."""
        self._farm = hashlib.sha256(farm.encode()).hexdigest()[:12]
        self._root = _default_root() if root is None else root
        self._folder: Path | None = None
        self._lock = -1
        self._numbers = itertools.count()
        own = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _leave_to_parent(own()))

    def __enter__(self) -> Self:
        """Make the folder of this worker."""
        try:
            self._open()
        except OSError as exc:
            log.warning("nobody will know what ran should this worker die", reason=str(exc))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove it."""
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            self.release()

    def release(self) -> None:
        """Hold the lock no longer."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _open(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._root.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(f"{self._root} belongs to somebody else")
        name = f"{self._farm}-{secrets.token_hex(6)}"
        making = self._root / f".{name}"  # not seen by others before it is locked
        making.mkdir(mode=0o700)
        lock = os.open(making / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._folder = making.rename(self._root / name)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def new_file(self) -> Path | None:
        """Return where the recorder of a new child is to be kept; None: nowhere."""
        return None if self._folder is None else self._folder / str(next(self._numbers))

    def of_the_dead(self) -> Iterator[Dead]:
        """Yield what dead workers of this farm have left, each to one caller on the whole host at a time.

        What is not forgotten comes again the next time.

        Raises:
            OSError: when the root cannot be read.
        """
        if self._folder is None:
            return
        for folder in self._root.iterdir():
            if folder == self._folder or not _NAME.fullmatch(folder.name):
                continue
            with _locked(folder) as is_ours:
                if is_ours and folder.name.startswith(f"{self._farm}-"):
                    yield Dead(folder)
                elif is_ours is not False and _is_stale(folder):
                    Dead(folder).forget()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool | None]:
    """Hold the lock of a folder; gives False while somebody else holds it, None where there is none (any more)."""
    if folder.name.startswith("."):  # being made: its maker must get the lock at once
        yield None
        return
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield _is_got(lock, folder)
    finally:
        os.close(lock)


def _is_got(lock: int, folder: Path) -> bool | None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    try:
        there = (folder / LOCK).stat()
    except OSError:  # removed between opening and locking it
        return None
    return os.path.samestat(os.fstat(lock), there) or None


def _is_stale(folder: Path) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > STALE_AFTER_S
    except OSError:
        return False


def _leave_to_parent(recordings: Recordings | None) -> None:
    """Let go of the lock in a fork, which would keep it when the worker is dead."""
    if recordings is not None:
        recordings.release()


def _default_root() -> Path:
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it is ours alone
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    return base / f"fuzzfarm-{os.getuid()}"
