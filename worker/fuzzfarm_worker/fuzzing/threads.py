"""Targets in threads of the worker (`isolation="none"`), in the place of children: for trusted code with native state.

A thread serves the worker over a socket as a child does, and shares cells with it. It cannot be killed: one whose
example hangs is given up, and ends by itself when its example does, because nobody listens any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING, Any

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.targets import import_failure
from fuzzfarm_worker.fuzzing.apart import DUMP_SIGNAL
from fuzzfarm_worker.fuzzing.child import Child, prepare
from fuzzfarm_worker.fuzzing.frames import BlockingChannel
from fuzzfarm_worker.fuzzing.interpreter import ChildLostError, Interpreter
from fuzzfarm_worker.fuzzing.nursery import Nursery, Target
from fuzzfarm_worker.fuzzing.recorder import Cell, Recorder
from fuzzfarm_worker.fuzzing.restrictions import Restrictions
from fuzzfarm_worker.sandbox.cells import Cells, new_cells, open_memory
from fuzzfarm_worker.sandbox.child import ChildEnd
from fuzzfarm_worker.sandbox.link import LOAD_TIMEOUT_S

if TYPE_CHECKING:
    from fuzzfarm_worker.fuzzing.subject import Subject

GIVE_UP_S = 0.2
"""How long a thread that was told to end may take: one that only waited for the interpreter's lock needs no longer."""

MOST_HANGING = 3
"""Threads with examples that do not end; each may take its share of the interpreter for as long as the worker lives."""

MAX_STACK_FRAMES = 100
"""As many as faulthandler writes of a child."""

log = get_logger(__name__)


class TargetThread:
    """One target in a thread of its own, from loading it to the end of its last example; a `Peer`.

    Attributes:
        target: its name.
        pid: the thread's id for the system; 0 until it runs.
        connection: our end of its socket.
        cells: what both sides see.
        exited: done when it has ended, or was given up.
        refusal: why the target cannot be fuzzed, once that is known.
    """

    def __init__(
        self, options: dict[str, Any], printed: int, cells: Cells, on_give_up: Callable[[TargetThread], None]
    ) -> None:
        """Start it; the running loop is told of its end.

        Args:
            options: for `child.prepare`.
            printed: descriptor of the file for its stack; it stays the caller's.
            cells: its own.
            on_give_up: called when its example does not end.
        """
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._printed = printed
        self._on_give_up = on_give_up
        self._give_up: asyncio.TimerHandle | None = None
        self._given_up = False
        self.target: str = options["target"]
        self.pid = 0
        self.cells = cells
        self.connection, self._theirs = socket.socketpair()
        self.exited: asyncio.Future[ChildEnd] = self._loop.create_future()
        self.refusal: TargetError | None = None
        self._thread = threading.Thread(target=self._run, name=f"fuzzing {self.target}", daemon=True)
        self._thread.start()

    @property
    def hangs(self) -> bool:
        """Whether it was given up and still runs."""
        return self._given_up and self._thread.is_alive()

    def _run(self) -> None:
        self.pid = threading.get_native_id()
        try:
            with self._theirs, contextlib.closing(self._load()) as subject:
                self._serve(subject)
        except TargetError as exc:
            self.refusal = exc
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended meanwhile
                self._loop.call_soon_threadsafe(self._end, ChildEnd(0))

    def _load(self) -> Subject:
        """Load the target as a zygote does.

        Raises:
            TargetError: when it cannot be fuzzed.
        """
        from fuzzfarm_worker.fuzzing import generation  # noqa: PLC0415 - loads Hypothesis

        generation.leave_random_alone()
        try:
            subject = prepare(self._options)
        except TargetError:
            raise
        except BaseException as exc:  # whatever its code raises, also to end its interpreter
            raise import_failure(self.target, exc) from exc
        assert subject is not None  # noqa: S101 - options name a target
        return subject

    def _serve(self, subject: Subject) -> None:
        channel = BlockingChannel(self._theirs)
        with contextlib.suppress(OSError):  # the worker has closed its end: it has given this thread up
            try:
                Child(channel, Recorder(self.cells), subject, output=None).serve()
            except OSError:
                raise
            except Exception:  # noqa: BLE001  # a defect of ours, told to the worker, which raises it
                channel.send(["broken", traceback.format_exc()])

    def kill(self) -> None:
        """Have it end after its example, or give it up when that does not end soon."""
        if self.exited.done() or self._give_up is not None:
            return
        self.cells.numbers[Cell.STOP] = 1
        with contextlib.suppress(OSError):  # it has closed its end
            self.connection.shutdown(socket.SHUT_WR)
        self._give_up = self._loop.call_later(GIVE_UP_S, self._abandon)

    def _abandon(self) -> None:
        self._given_up = True
        self._on_give_up(self)
        self._end(ChildEnd(-signal.SIGKILL))

    def _end(self, end: ChildEnd) -> None:
        if self._give_up is not None:
            self._give_up.cancel()
        if not self.exited.done():
            self.exited.set_result(end)

    def send_signal(self, number: int) -> None:
        """Write its stack on the signal that has a child write its own; there is no other for a thread."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - documented for debuggers
        if number == DUMP_SIGNAL and frame is not None:
            os.write(self._printed, _report(frame).encode("ascii", "backslashreplace"))

    def close(self) -> None:
        """Unmap the cells; of a thread that was given up they go with it, because it may still write to them."""
        if self._given_up:
            self.cells.remove_file()
        else:
            self.cells.close()


class ThreadInterpreter(Interpreter):
    """A thread that has one target loaded.

    Args:
        thread: just started.
        printed: descriptor of the file for its stack.
        child: makes a child that has the same target.
    """

    def __init__(self, thread: TargetThread, printed: int, child: Callable[[], Awaitable[Interpreter]]) -> None:
        super().__init__(thread, printed)
        self._child = child

    async def describe(
        self, seed: int, index: int | None, timeout_s: float, choices: bytes = b""
    ) -> dict[str, Any] | None:
        """Return the same as the base, from a child: what hangs may hang again, and some of it has to run in a fork."""
        from fuzzfarm_worker.fuzzing.generation import fingerprint_of  # noqa: PLC0415 - loads Hypothesis

        child = await self._child()
        try:
            told = await child.describe(seed, index, timeout_s, choices)
        finally:
            await child.close()
        if told is None or told["fingerprint"] is None:
            return told
        return {**told, "fingerprint": fingerprint_of(told["choices"])}  # children hash in another way than we do


class TargetThreads:
    """Makes the threads of one worker.

    Args:
        nursery: knows what may be loaded, and makes children that tell about examples that hang.
    """

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._loading = asyncio.Lock()
        self._given_up: list[TargetThread] = []
        self.given_up = 0
        """Threads given up so far."""

    @property
    def exhausted(self) -> bool:
        """Whether so many threads hang now that there should be no more of them."""
        self._given_up = [thread for thread in self._given_up if thread.hangs]
        return len(self._given_up) >= MOST_HANGING

    async def interpreter(self, target: Target) -> Interpreter:
        """Return a target in a fresh thread, which is the caller's to close.

        One loads at a time: what a module does when it is imported, and a strategy when it is first used, need not be
        safe in threads.

        Raises:
            TargetError: when the target cannot be fuzzed, or loading it takes too long.
        """
        async with self._loading:
            with ExitStack() as undo:
                printed = open_memory("fuzzfarm-printed")
                undo.callback(os.close, printed)
                memory, cells = new_cells(self._nursery.recorder_file())
                os.close(memory)
                undo.callback(cells.close)
                thread = TargetThread(self._nursery.options(target), printed, cells, self._note)
                undo.pop_all()
            interpreter = ThreadInterpreter(thread, printed, lambda: self._nursery.child(target, Restrictions()))
            try:
                await interpreter.greet()
            except BaseException as exc:
                await interpreter.close()
                if isinstance(exc, ChildLostError):
                    raise thread.refusal or _took_too_long(target) from exc
                raise
            return interpreter

    def _note(self, thread: TargetThread) -> None:
        """Remember a thread that was given up, and say so the first time."""
        self._given_up.append(thread)
        self.given_up += 1
        if self.given_up == 1:
            log.warning(
                "a target in the worker does not come to its end and cannot be stopped: its thread is left to itself; "
                "fuzz it in children if that happens often",
                target=thread.target,
            )


def _took_too_long(target: Target) -> TargetError:
    return import_failure(target.target, f"importing it takes more than {LOAD_TIMEOUT_S:.0f} s")


def _report(frame: FrameType) -> str:
    """Return a stack as faulthandler writes it."""
    lines = [
        f'  File "{one.f_code.co_filename}", line {one.f_lineno} in {one.f_code.co_name}'
        for one in islice(_outwards(frame), MAX_STACK_FRAMES)
    ]
    return "\n".join(["Stack (most recent call first):", *lines, ""])


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
