"""One child interpreter as the worker sees it: started, asked, watched, and told apart from the dead.

`start_child` is the seam where children come from: a plain interpreter now, a fork of a warm zygote later. Nothing
else of this package knows how a child is made.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_worker.environment import interpreter_environment
from fuzzfarm_worker.fuzzing.child import DUMP_SIGNAL
from fuzzfarm_worker.fuzzing.frames import Channel
from fuzzfarm_worker.fuzzing.recorder import Cell, Recorder
from fuzzfarm_worker.fuzzing.signature import Frame
from fuzzfarm_worker.processes import ProcessConfig, ProcessManager
from fuzzfarm_worker.sandbox.cells import open_memory
from fuzzfarm_worker.sandbox.link import LOAD_TIMEOUT_S

ANSWER_TIMEOUT_S = 10.0
"""Longest wait for an answer that needs no code of the target."""

DUMP_WAIT_S = 0.2
"""How long a hanging child may take to write its stack; it needs about a millisecond."""

EXIT_WAIT_S = 10.0
"""Longest wait for the exit after SIGKILL; only a process stuck inside the kernel takes longer than milliseconds."""

MAX_STACK_BYTES = 65_536
"""Read of a crash report; faulthandler writes at most 100 frames."""

_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$', re.MULTILINE)


class ChildLostError(RuntimeError):
    """A child died, or did not answer, while it ran no example."""


class Process(Protocol):
    """What is needed of a process; those of a `ProcessManager` have it."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the signal's number, or None while it runs."""
        ...

    async def wait(self) -> int:
        """Wait for its exit."""
        ...

    def kill(self) -> None:
        """Kill it, with all that it started."""
        ...


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended.

    Attributes:
        index: the example that it ran, SHRINKING, or None when it ran none.
        hung: whether it was killed because the example took too long.
        returncode: its exit code, or minus the signal's number.
        stack: its Python stack, outermost frame first, where it could be had.
        report: what faulthandler wrote.
    """

    index: int | None
    hung: bool
    returncode: int
    stack: list[Frame]
    report: str

    @property
    def cause(self) -> str:
        """What people call it: `SIGSEGV`, or `exit code 3`."""
        if self.returncode < 0:
            return signal.Signals(-self.returncode).name
        return f"exit code {self.returncode}"


class Interpreter:
    """A child process that has one target loaded."""

    def __init__(self, process: Process, channel: Channel, recorder: Recorder, crashes: int) -> None:
        """Take over what `start_child` made.

        Args:
            process: the running child.
            channel: our end of its socket.
            recorder: the flight recorder it writes.
            crashes: descriptor of the file to which it writes stacks; closed by `close`.
        """
        self.process = process
        self.channel = channel.open()
        self.recorder = recorder
        self.python = ""
        self.hypothesis = ""
        self._crashes = crashes
        self._read_to = 0
        self._exit = asyncio.ensure_future(process.wait())
        self._exit.add_done_callback(lambda _done: channel.wake())

    @property
    def dead(self) -> bool:
        """Whether it has exited and all it sent was taken in."""
        if not self._exit.done():
            return False
        self.channel.drain()  # a grandchild may hold the socket open, so there may be no end of it
        return True

    async def load(self, target: str, strategy: str | None, memory_bytes: int | None, own: Sequence[str] = ()) -> None:
        """Import the target there.

        Args:
            target: its name.
            strategy: the name of what draws its arguments, or None.
            memory_bytes: address space of the child, or None for no limit.
            own: those of the two names that must be defined in the module that they name.

        Raises:
            TargetError: when it cannot be fuzzed, or importing it ends or blocks the interpreter.
        """
        self.recorder.begin(0, 0)
        request = {
            "op": "load",
            "target": target,
            "strategy": strategy,
            "memory_bytes": memory_bytes,
            "own": list(own),
            "path": [os.getcwd() if entry == "" else entry for entry in sys.path],
        }
        try:
            answer = await self._ask(request, LOAD_TIMEOUT_S)
        except ChildLostError as exc:
            how = self.death(hung=False).cause if self.dead else f"takes more than {LOAD_TIMEOUT_S:.0f} s"
            raise TargetError(
                target, f"importing {target!r} ends or blocks its interpreter ({how}): run that import by itself first"
            ) from exc
        if answer[0] == "unusable":
            raise TargetError(answer[1], answer[2])
        _ready, self.python, self.hypothesis = answer

    async def describe(self, seed: int, index: int, timeout_s: float) -> dict[str, Any] | None:
        """Return an example's source, choices and fingerprint; None when generating it kills or hangs."""
        self.recorder.begin(0, 0)
        try:
            answer = await self._ask({"op": "describe", "seed": seed, "index": index}, timeout_s)
        except ChildLostError:
            return None
        return dict(answer[1])

    async def once(self, seed: int, index: int | None, choices: bytes, timeout_s: float) -> dict[str, Any] | None:
        """Run one example and return its failure, or None when it passes.

        Raises:
            ChildLostError: when the child died or took too long; `death` tells more.
        """
        self.recorder.begin(0, 0)
        answer = await self._ask({"op": "once", "seed": seed, "index": index, "choices": choices}, timeout_s)
        return None if answer[1] is None else dict(answer[1])

    async def _ask(self, request: dict[str, Any], timeout_s: float) -> Any:
        """Send a request and return its one answer."""
        self.channel.send(request)
        until = asyncio.get_running_loop().time() + timeout_s
        while True:
            dead = self.dead
            if (answer := self.channel.pop()) is not None:
                return raise_if_broken(answer)
            left = until - asyncio.get_running_loop().time()
            if dead or left <= 0:
                raise ChildLostError(f"the child {'died' if dead else 'did not answer'} on {request['op']!r}")
            await self.channel.wait(left)

    def begin(self, *, start: int, deadline_ns: int, **request: Any) -> None:
        """Start a run; messages and the recorder tell how it goes.

        Args:
            start: the first index.
            deadline_ns: no example starts after this monotonic time; 0: none.
            request: what `Examples` takes beyond.
        """
        self.recorder.begin(start, deadline_ns)
        self.channel.send({"op": "run", "start": start, **request})

    async def dump_stack(self) -> None:
        """Have a hanging child write its stack."""
        if DUMP_SIGNAL is None or self.process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, DUMP_SIGNAL)
        loop = asyncio.get_running_loop()
        until = loop.time() + DUMP_WAIT_S
        size = self._read_to
        while loop.time() < until and not self._exit.done():
            await asyncio.sleep(0.01)
            before, size = size, os.fstat(self._crashes).st_size
            if size > self._read_to and size == before:
                return

    def kill(self) -> None:
        """Kill it and all that it started, at once; `exited` waits for the end."""
        self.process.kill()

    async def exited(self) -> None:
        """Wait, bounded, for its exit; call `kill` first."""
        await asyncio.wait({self._exit}, timeout=EXIT_WAIT_S)

    def death(self, *, hung: bool) -> Death:
        """Return how it ended; it must be dead."""
        returncode = self.process.returncode
        size = os.fstat(self._crashes).st_size
        report = os.pread(self._crashes, min(size - self._read_to, MAX_STACK_BYTES), self._read_to)
        self._read_to = size
        text = report.decode("utf-8", "backslashreplace")
        frames = [Frame(m["file"], int(m["line"]), m["function"]) for m in _FRAME.finditer(text)]
        return Death(self.recorder.running, hung, -9 if returncode is None else returncode, frames[::-1], text)

    async def close(self) -> None:
        """Kill it, wait for its exit and free all it holds; nothing of it is left after this."""
        self.kill()
        await self.exited()
        self._exit.cancel()
        self.channel.close()
        self.recorder.close()
        os.close(self._crashes)

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


def fuzzing_environment() -> dict[str, str]:
    """Return the environment of fuzzing children: that of other children, Hypothesis's own, and one hash seed for all.

    Hypothesis keeps its tables of characters in the user's cache, not in a folder of whatever directory we run in.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    hypothesis = {name: value for name, value in os.environ.items() if name.startswith("HYPOTHESIS_")}
    hypothesis.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", f"{cache}/fuzzfarm/hypothesis")
    return {**interpreter_environment(), **hypothesis, "PYTHONHASHSEED": "0"}


async def start_child(processes: ProcessManager) -> Interpreter:
    """Start a child interpreter that has nothing loaded yet.

    It leads its own group, inherits no socket but its own, and dies when this process does.

    Raises:
        ProcessError: when no process can be started.
    """
    with ExitStack() as undo, ExitStack() as always:
        ours, theirs = socket.socketpair()
        always.callback(theirs.close)
        undo.callback(ours.close)
        memory = open_memory("fuzzfarm-recorder")
        always.callback(os.close, memory)
        crashes = open_memory("fuzzfarm-crashes")
        undo.callback(os.close, crashes)
        recorder = Recorder(memory)
        undo.callback(recorder.close)
        socket.send_fds(ours, [b"\0"], [memory, crashes])
        process = await processes.start_process(
            ProcessConfig(
                command=[sys.executable, "-P", "-m", "fuzzfarm_worker.fuzzing.child"],
                env=fuzzing_environment(),
                timeout=None,  # each example has its own limit, which the shard watches
                name="fuzzing child",
                stdin=theirs.fileno(),
            )
        )
        interpreter = Interpreter(process, Channel(ours), recorder, crashes)
        undo.pop_all()
        return interpreter
