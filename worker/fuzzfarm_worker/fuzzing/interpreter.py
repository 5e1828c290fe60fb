"""One child interpreter as the worker sees it: started, asked, watched, and told apart from the dead.

Where children come from is nursery.py's business; a thread of the worker in the place of one is that of threads.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fuzzfarm_worker.failures import ending_name
from fuzzfarm_worker.fuzzing.apart import DUMP_SIGNAL
from fuzzfarm_worker.fuzzing.frames import Channel
from fuzzfarm_worker.fuzzing.recorder import Cell, Recorder
from fuzzfarm_worker.fuzzing.signature import Frame
from fuzzfarm_worker.fuzzing.stacks import frames_of, split_report
from fuzzfarm_worker.sandbox.link import LOAD_TIMEOUT_S

if TYPE_CHECKING:
    from fuzzfarm_worker.sandbox.cells import Cells
    from fuzzfarm_worker.sandbox.child import ChildEnd

DUMP_WAIT_S = 0.2
"""How long a hanging child may take to write its stack; it needs about a millisecond."""

MAX_STACK_BYTES = 65_536
"""Read of what a child has printed; faulthandler writes at most 100 frames."""

MAX_PRINTED_BYTES = 16_000_000
"""More of what a child prints is forgotten: the file is memory."""


class ChildLostError(RuntimeError):
    """A child died, or did not answer, while it ran no example."""


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended.

    Attributes:
        index: the example that it ran, or None when it ran none.
        hung: whether it was killed because the example took too long.
        returncode: its exit code, or minus the signal's number.
        stack: its Python stack, outermost frame first, where it could be had.
        report: what faulthandler wrote.
        output: what the example had printed.
    """

    index: int | None
    hung: bool
    returncode: int
    stack: list[Frame]
    report: str
    output: str = ""

    @property
    def cause(self) -> str:
        """What people call it: `SIGSEGV`, or `exit code 3`."""
        return ending_name(self.returncode)


class Peer(Protocol):
    """What runs the examples, at the other end of a socket: a forked child, or a thread.

    Attributes:
        pid: its process id, or the thread's.
        connection: our end of its socket.
        cells: what both sides see.
        exited: done when nothing of it is left, or it was given up.
    """

    pid: int
    connection: socket.socket
    cells: Cells
    exited: asyncio.Future[ChildEnd]

    def kill(self) -> None:
        """End it; `exited` is done within some seconds."""
        ...

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        ...

    def close(self) -> None:
        """Free what is held of it, when `exited` is done."""
        ...


class Interpreter:
    """A child that has one target loaded.

    Attributes:
        python: version of its Python.
        hypothesis: version of its Hypothesis.
    """

    def __init__(self, child: Peer, printed: int, cpu_s: int | None = None) -> None:
        """Take over what runs the examples, and the descriptor of the file into which it prints.

        Args:
            child: a child, or a thread.
            printed: the descriptor.
            cpu_s: CPU seconds of each example; None: no limit.
        """
        self.child = child
        self.channel = Channel(child.connection).open()
        self.recorder = Recorder(child.cells)
        self.python = ""
        self.hypothesis = ""
        self._printed = printed
        self._cpu_s = cpu_s
        child.exited.add_done_callback(lambda _end: self.channel.wake())

    @property
    def dead(self) -> bool:
        """Whether it has exited and all it sent was taken in."""
        if not self.child.exited.done():
            return False
        self.channel.drain()
        return True

    async def greet(self) -> None:
        """Wait until it serves.

        Raises:
            ChildLostError: when it does not.
        """
        _ready, self.python, self.hypothesis = await self._answer("its start", LOAD_TIMEOUT_S)

    async def describe(
        self, seed: int, index: int | None, timeout_s: float, choices: bytes = b""
    ) -> dict[str, Any] | None:
        """Return an example's source, choices and fingerprint; None when generating it kills or hangs."""
        self.recorder.begin(0, 0)
        request = {"op": "describe", "seed": seed, "index": index, "choices": choices}
        try:
            answer = await self._ask(request, timeout_s)
        except ChildLostError:
            return None
        return dict(answer[1])

    async def once(self, seed: int, index: int | None, choices: bytes, timeout_s: float) -> dict[str, Any] | None:
        """Run one example and return its failure, or None when it passes.

        Raises:
            ChildLostError: when the child died or took too long; `death` tells more.
        """
        self.recorder.begin(0, 0)
        request = {"op": "once", "seed": seed, "index": index, "choices": choices}
        answer = await self._ask(request, timeout_s)
        return None if answer[1] is None else dict(answer[1])

    async def _ask(self, request: dict[str, Any], timeout_s: float) -> Any:
        """Send a request and return its one answer."""
        self.channel.send({**request, "cpu_s": self._cpu_s})
        return await self._answer(repr(request["op"]), timeout_s)

    async def _answer(self, what: str, timeout_s: float) -> Any:
        until = asyncio.get_running_loop().time() + timeout_s
        while True:
            dead = self.dead
            if (answer := self.channel.pop()) is not None:
                return raise_if_broken(answer)
            left = until - asyncio.get_running_loop().time()
            if dead or left <= 0:
                raise ChildLostError(f"the child {'died' if dead else 'did not answer'} on {what}")
            await self.channel.wait(left)

    def begin_shrinking(self, **request: Any) -> None:
        """Start to make an example smaller; messages and the recorder tell how it goes.

        Args:
            request: what `Examples.shrink` takes, and the address of the example.
        """
        self.recorder.begin(0, 0)
        self.channel.send({"op": "shrink", "cpu_s": self._cpu_s, **request})

    def begin(self, *, start: int, deadline_ns: int, owner: str, **request: Any) -> None:
        """Start a run; messages and the recorder tell how it goes.

        Args:
            start: the first index.
            deadline_ns: no example starts after this monotonic time; 0: none.
            owner: for whom it is, should the worker die; empty: nobody asks then.
            request: what `Examples` takes beyond.
        """
        self.recorder.begin(start, deadline_ns, owner)
        self.channel.send({"op": "run", "start": start, "cpu_s": self._cpu_s, **request})

    async def dump_stack(self) -> None:
        """Have a hanging child write its stack."""
        if DUMP_SIGNAL is None:
            return
        size = self._printed_bytes()
        self.child.send_signal(DUMP_SIGNAL)
        loop = asyncio.get_running_loop()
        until = loop.time() + DUMP_WAIT_S
        start = size
        while loop.time() < until and not self.child.exited.done():
            await asyncio.sleep(0.01)
            before, size = size, self._printed_bytes()
            if size > start and size == before:
                return

    def bound_output(self) -> None:
        """Forget what it has printed when that is much: it is kept in memory."""
        if self._printed_bytes() > MAX_PRINTED_BYTES:
            os.ftruncate(self._printed, 0)

    def _printed_bytes(self) -> int:
        return os.fstat(self._printed).st_size

    def kill(self) -> None:
        """Kill it and all that it started, at once; `exited` waits for the end."""
        self.child.kill()

    async def exited(self) -> None:
        """Wait, bounded, for its exit; call `kill` first."""
        await asyncio.wait({self.child.exited})

    def death(self, *, hung: bool) -> Death:
        """Return how it ended; it must be dead."""
        end = self.child.exited.result()
        text = self._tail()
        output, report = split_report(text)
        # One that died with its zygote was not ended by its example.
        index = self.recorder.running if end.zygote is None else None
        return Death(index, hung, end.returncode, frames_of(report), report, output)

    def _tail(self) -> str:
        """Return what it printed since its example began, as far as that is kept."""
        size = self._printed_bytes()
        start = self.recorder.cells[Cell.PRINTED]
        start = max(start if start <= size else 0, size - MAX_STACK_BYTES)
        return os.pread(self._printed, size - start, start).decode("utf-8", "backslashreplace")

    async def close(self) -> None:
        """Kill it, wait for its exit and free all it holds; nothing of it is left after this."""
        self.kill()
        await self.exited()
        self.channel.close()
        self.child.close()
        os.close(self._printed)

    def ask_to_stop(self) -> None:
        """Tell it to end its run after the current example."""
        self.recorder.cells[Cell.STOP] = 1


def raise_if_broken(message: Any) -> Any:
    """Return a message of a child unless it says that the child itself is defective.

    Raises:
        RuntimeError: with the child's traceback.
    """
    if message[0] == "broken":
        raise RuntimeError(f"a fuzzing child failed, which is a defect of fuzzfarm:\n{message[1]}")
    return message
