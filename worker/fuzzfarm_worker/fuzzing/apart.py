"""Calls apart: each in a fork of the child, so that no example finds what another one left behind (`stateless`).

The child generates, forks, and waits. A fork that dies takes the child with it, in the same way, so the worker sees
the death of an example as without forks; but one that makes an example smaller which kills outlives many of them.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

import msgpack

from fuzzfarm_worker.failures import ending_name
from fuzzfarm_worker.fuzzing.cpu import CpuLimit
from fuzzfarm_worker.fuzzing.frames import pack
from fuzzfarm_worker.fuzzing.recorder import Cell
from fuzzfarm_worker.sandbox.cells import open_memory

DUMP_SIGNAL = getattr(signal, "SIGUSR1", None)
"""Writes the Python stack, also while C code runs; None where the system has no such signal."""

PASSED, FAILED, REJECTED = 1, 2, 3
"""What a fork says of its call in `Cell.VERDICT`, before it ends; 0: nothing, because it died."""

MAX_FAILURE_BYTES = 1_000_000


class ApartError(Exception):
    """The call failed in its fork.

    Attributes:
        failure: what was told of it, as `Examples.failure` makes it.
    """

    def __init__(self, failure: dict[str, Any]) -> None:
        self.failure = failure
        super().__init__(failure["message"])


class ForkDiedError(Exception):
    """The call ended its fork; the message says how: "SIGSEGV", or "exit code 3"."""


class Apart:
    """Runs calls in forks of this process.

    Args:
        cells: of the flight recorder.
        rejections: exceptions that reject an example.
        cpu_limit: of each call; None: none.
        outlive: go on when a fork dies, instead of dying in the same way.
    """

    def __init__(
        self,
        cells: memoryview[int],
        rejections: tuple[type[BaseException], ...],
        cpu_limit: CpuLimit | None = None,
        *,
        outlive: bool = False,
    ) -> None:
        self._cells = cells
        self._rejections = rejections
        self._cpu_limit = cpu_limit
        self._outlive = outlive
        self._told = open_memory("fuzzfarm-failure")
        self._fork = 0
        if DUMP_SIGNAL is not None:
            faulthandler.unregister(DUMP_SIGNAL)
            signal.signal(DUMP_SIGNAL, self._pass_on)

    def call(self, call: Callable[[], None], failure_of: Callable[[BaseException], dict[str, Any]]) -> bool:
        """Make the call in a fork; returns whether it rejected the example.

        Raises:
            ApartError: when the call raised.
            ForkDiedError: when the fork dies; but unless this process is to outlive that, it dies, too.
        """
        self._cells[Cell.VERDICT] = 0
        self._fork = os.fork()
        if not self._fork:
            self._run(call, failure_of)
        _, status = os.waitpid(self._fork, 0)
        self._fork = 0
        verdict = self._cells[Cell.VERDICT]
        if verdict == FAILED:
            raise ApartError(self._failure())
        if verdict not in {PASSED, REJECTED}:
            code = os.waitstatus_to_exitcode(status)
            if self._outlive:
                raise ForkDiedError(ending_name(code))
            _die_as(code)
        return verdict == REJECTED

    def _pass_on(self, number: int, _: Any) -> None:
        if self._fork:
            os.kill(self._fork, number)

    def _run(self, call: Callable[[], None], failure_of: Callable[[BaseException], dict[str, Any]]) -> NoReturn:
        try:
            if DUMP_SIGNAL is not None:
                faulthandler.register(DUMP_SIGNAL, file=2, all_threads=False)
            if self._cpu_limit is not None:
                self._cpu_limit.keep()
            call()
            self._cells[Cell.VERDICT] = PASSED
        except self._rejections:
            self._cells[Cell.VERDICT] = REJECTED
        except BaseException as exc:  # noqa: BLE001  # whatever a target raises is a failure, SystemExit too
            os.ftruncate(self._told, 0)
            os.pwrite(self._told, pack(failure_of(exc)), 0)
            self._cells[Cell.VERDICT] = FAILED
        finally:
            os._exit(0)

    def _failure(self) -> dict[str, Any]:
        raw = os.pread(self._told, MAX_FAILURE_BYTES, 0)
        return dict(msgpack.unpackb(raw, unicode_errors="surrogatepass"))


def _die_as(code: int) -> NoReturn:
    """End this process as its fork has ended, without a report of its own."""
    faulthandler.disable()
    if code < 0:
        if -code not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        signal.pause()
    os._exit(code)
