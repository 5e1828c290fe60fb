"""The child's side of calls: one after another, each answered before the next is started.

A request is the frame of `[target, listed, args, kwargs]`, an answer that of `[code, value, started_ns, took_ns]`; the
n-th answer belongs to the n-th request. An answer is sent before the next call starts, so that nothing that was done
is lost with a child.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from dataclasses import replace
from typing import Any

from fuzzfarm_shared.errors import TargetError, UnsupportedValueError
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_shared.targets import check_home, import_target
from fuzzfarm_shared.values import pack, unpack
from fuzzfarm_worker.failures import operation_error
from fuzzfarm_worker.sandbox.cells import Cell, Cells
from fuzzfarm_worker.sandbox.frames import MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, READ_BYTES, FrameReader, framed

ANSWER_OVERHEAD_BYTES = 32
"""What an answer takes beyond its value, rounded up."""

MAX_RESULT_BYTES = MAX_ANSWER_BYTES - ANSWER_OVERHEAD_BYTES


DONE, FAILED, REFUSED, RETURNED = range(4)
"""Codes of answers, whose value is: what the call returned; its error; why the target cannot be called on this host;
nothing, because the worker wanted the call back. Plain numbers: a member of an enumeration takes ten times as long."""


def serve_calls(connection: socket.socket, cells: Cells, _prepared: None) -> None:
    """Answer calls until the worker is gone."""
    CallServer(connection, cells).serve()


class CallServer:
    """Answers the calls of one worker."""

    def __init__(self, connection: socket.socket, cells: Cells) -> None:
        self._connection = connection
        self._numbers = cells.numbers
        self._targets: dict[tuple[str, bool], Any] = {}
        self._runner: asyncio.Runner | None = None
        self._pid = os.getpid()
        self._number = 0

    def serve(self) -> None:
        """Answer until the worker is gone."""
        frames = FrameReader(MAX_REQUEST_BYTES)
        try:
            while data := self._connection.recv(READ_BYTES):
                for body in frames.feed(data):
                    self._connection.sendall(framed(self._answer(body)))
        except ConnectionError:
            return

    def _answer(self, body: bytes) -> bytes:
        numbers = self._numbers
        self._number += 1
        # In this order: whoever reads that the call runs may believe the start, and either the worker finds that it
        # runs, or we find that it was taken back.
        numbers[Cell.STARTED] = started_ns = time.monotonic_ns()
        numbers[Cell.RUNNING] = self._number
        if self._number >= numbers[Cell.LIMIT]:
            return pack([RETURNED, None, 0, 0])
        code, value = self._outcome(body)
        span = (started_ns, time.monotonic_ns() - started_ns)
        return _result(value, span) if code == DONE else pack([code, value, *span])

    def _outcome(self, body: bytes) -> tuple[int, Any]:
        try:
            target, listed, args, kwargs = unpack(body)
            function = self._targets.get((target, listed)) or self._load(target, listed)
        except TargetError as exc:
            return REFUSED, str(exc)
        try:
            value = function(*args, **kwargs)
            if hasattr(type(value), "__await__"):
                value = self._awaited(value)
        except BaseException as exc:  # noqa: BLE001 - whatever the target raises is its outcome
            self._end_if_forked()
            return FAILED, _error(exc)
        self._end_if_forked()
        return DONE, value

    def _load(self, target: str, listed: bool) -> Any:
        function = import_target(target)
        if not listed:
            check_home(target, function)
        self._targets[target, listed] = function
        return function

    def _awaited(self, awaitable: Any) -> Any:
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            return self._runner.run(_value_of(awaitable))
        finally:
            if asyncio.all_tasks(self._runner.get_loop()):  # what a call leaves behind must not run into the next one
                self._runner.close()
                self._runner = None

    def _end_if_forked(self) -> None:
        """End a process that the target forked off and that came back from the call, too: only one may answer."""
        if os.getpid() != self._pid:
            os._exit(0)


async def _value_of(awaitable: Any) -> Any:
    return await awaitable


def _result(value: Any, span: tuple[int, int]) -> bytes:
    try:
        answer = pack([DONE, value, *span])
    except UnsupportedValueError as exc:
        if isinstance(exc.__cause__, MemoryError):
            return pack([FAILED, _error(exc.__cause__), *span])
        return pack([FAILED, _invalid(value, str(exc)), *span])
    if len(answer) <= MAX_RESULT_BYTES:
        return answer
    message = (
        f"the result takes {len(answer):,} bytes and a child may return {MAX_ANSWER_BYTES:,}: "
        "write it to a file and return the path"
    )
    return pack([FAILED, _invalid(value, message), *span])


def _invalid(value: Any, message: str) -> OperationError:
    return OperationError(ErrorKind.INVALID_RESULT, type(value).__qualname__, message)


def _error(exc: BaseException) -> OperationError:
    error = operation_error(exc, 1, "")
    return replace(error, kind=ErrorKind.MEMORY) if isinstance(exc, MemoryError) else error
