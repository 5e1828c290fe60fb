"""Calls in one child: sent ahead, answered in order, each with its own time limit.

How a call is taken back from a child that is busy with the one before it, without asking the child: the worker
lowers `LIMIT`, and looks at `RUNNING` a little later. The child writes `RUNNING` before it reads `LIMIT`, so by then
either the worker sees that the call runs, or the child is going to see the limit (Dekker's algorithm; the little while
stands for its memory barrier, since a store takes well under a microsecond to be seen). The child answers a call that
it finds beyond the limit with `RETURNED`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fuzzfarm_shared.errors import CodecError, TargetError
from fuzzfarm_shared.outcomes import OperationError
from fuzzfarm_shared.values import unpack
from fuzzfarm_worker.failures import OperationFailedError
from fuzzfarm_worker.sandbox.cells import NO_LIMIT, Cell
from fuzzfarm_worker.sandbox.frames import MAX_ANSWER_BYTES, READ_BYTES, BrokenStreamError, FrameReader
from fuzzfarm_worker.sandbox.serving import DONE, REFUSED, RETURNED

if TYPE_CHECKING:
    from fuzzfarm_worker.sandbox.child import ForkedChild

SETTLE_S = 0.002
"""Between the limit and the look at what runs: thousands of times what a store takes to be seen."""

LOOK_APART_S = 0.01
"""Between two looks at the CPU time of a child: the clock that charges it may tick every 4 ms."""

COMPUTING_SHARE = 0.1
"""A child that used this much of the time computes; one that waits uses next to none, on a busy host too."""

PATIENCE_S = 10.0
"""A call without a time limit that computes for longer no longer keeps others from computing beside it."""

START_WAIT_S = 10.0
"""A child that has calls and begins none of them for so long was stopped: it is killed, and they go to another."""


class Timed(NamedTuple):
    """What a call returned, and when it ran.

    Attributes:
        value: what it returned.
        started: its start, on the monotonic clock.
        took_s: seconds from there to its end.
    """

    value: Any
    started: float
    took_s: float


@dataclass(slots=True, eq=False)
class Call:
    """One call on its way.

    Attributes:
        target: what is called.
        request: the frame that a child gets.
        timeout_s: seconds from its start; None: no limit.
        answer: its value as `Timed`, OperationFailedError, or TargetError when it cannot be called on this host.
        caller: the child that has it.
    """

    target: str
    request: bytes
    timeout_s: float | None
    answer: asyncio.Future[Timed]
    caller: Caller | None = field(default=None)


class Owner(Protocol):
    """What a caller tells: the group that it belongs to."""

    def answered(self, count: int, mean_s: float) -> None:
        """Some calls were answered, in so many seconds each."""
        ...

    def take_back(self, calls: list[Call]) -> None:
        """These were not started, and need another child."""
        ...

    def ended(self, caller: Caller) -> None:
        """The child is gone, and so is all that it started."""
        ...


class Caller:
    """The worker's side of a child that serves calls.

    Attributes:
        child: the child.
        killed_for: the call for whose sake it was killed.
        expired: whether that call's time was over.
        broken: whether it wrote something else than answers.
        idle_since: monotonic time of its last answer.
    """

    def __init__(self, child: ForkedChild, owner: Owner) -> None:
        self.child = child
        self.killed_for: Call | None = None
        self.expired = False
        self.broken = False
        self.idle_since = time.monotonic()
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._numbers = child.cells.numbers
        self._numbers[Cell.LIMIT] = NO_LIMIT
        self._frames = FrameReader(MAX_ANSWER_BYTES)
        self._sent: deque[Call | None] = deque()  # None: taken back, and not yet returned by the child
        self._first = 1
        self._returning = 0
        self._settling: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._unsent = bytearray()
        self._since = 0.0
        self._computes = True
        self._looked_at = self._cpu_s = 0.0
        self._reading = True
        self._dying = False
        self._loop.add_reader(child.connection, self._readable)
        child.exited.add_done_callback(lambda _: self._exited())

    @property
    def free(self) -> bool:
        """Whether it has nothing to do, and may be given something."""
        return not (self._sent or self._dying or self._unsent or self._settling)

    @property
    def busy(self) -> bool:
        """Whether it has calls."""
        return bool(self._sent)

    @property
    def _endless(self) -> bool:
        call = self._sent[0]
        return call is not None and call.timeout_s is None

    @property
    def queued(self) -> int:
        """How many calls it has behind the first."""
        return max(0, len(self._sent) - 1 - self._returning)

    def room(self, most: int) -> int:
        """How many more calls it takes, if `most` are to be there."""
        if self._dying or self._returning or self._settling is not None or self._unsent:
            return 0
        return most - len(self._sent)

    def send(self, calls: list[Call]) -> None:
        """Have the child run these calls after those that it has."""
        now = time.monotonic()
        if not self._sent:
            self._since = now
            if now - self.idle_since > LOOK_APART_S:
                self._looked_at = 0.0  # what it used while it was idle tells nothing
        self._sent += calls
        for call in calls:
            call.caller = self
        self._write(b"".join([call.request for call in calls]))
        limits = [call.timeout_s for call in calls if call.timeout_s is not None]
        self._set_alarm(min(START_WAIT_S, *limits) if limits else START_WAIT_S)

    def runs(self, call: Call) -> bool:
        """Whether the child has begun this call, and not answered it."""
        return bool(self._sent) and self._sent[0] is call and self._numbers[Cell.RUNNING] == self._first

    def stuck(self, now: float, after_s: float) -> bool:
        """Whether it has been at one call for longer than `after_s`."""
        return bool(self._sent) and now - self._since > after_s

    def computing(self, now: float) -> bool:
        """Whether it is at a call and used the time since the last look for computing, as far as is known.

        Not of a call that may go on for ever: others must not wait for its end.
        """
        if not self._sent or (self._endless and now - self._since > PATIENCE_S):
            return False
        if now - self._looked_at > LOOK_APART_S:
            cpu_s = self.child.cpu_s()
            if self._looked_at == 0.0 or cpu_s is None:
                self._computes = True  # nothing to compare with
            else:
                self._computes = cpu_s - self._cpu_s > COMPUTING_SHARE * (now - self._looked_at)
            self._cpu_s = cpu_s or 0.0
            self._looked_at = now
        return self._computes

    def recall(self) -> None:
        """Take back what the child has not begun; `Owner.take_back` gets it after a moment."""
        if self._settling is None and not self._dying and self._sent:
            self._numbers[Cell.LIMIT] = self._numbers[Cell.RUNNING] + 1
            self._settling = self._loop.call_later(SETTLE_S, self._take_back)

    def kill(self, call: Call | None = None) -> None:
        """Kill the child, at once, for the sake of `call`; `Owner.ended` is told when nothing of it is left."""
        self._dying = True
        self.killed_for = call
        self.child.kill()

    def span(self) -> tuple[float, float]:
        """Return start and seconds until now of the call that runs, or ran when the child ended."""
        started = self._numbers[Cell.STARTED] / 1e9
        return started, time.monotonic() - started

    def split(self) -> tuple[Call | None, list[Call]]:
        """Return the call with which the child ended, and those that are for another child."""
        calls = [call for call in self._sent if call is not None]
        begun = bool(self._sent) and self._numbers[Cell.RUNNING] == self._first
        if not begun or self._sent[0] is None or self.killed_for not in {None, self._sent[0]}:
            return None, calls  # where it was killed for a call that ended in that moment, the next one is innocent
        return calls[0], calls[1:]

    def close(self) -> None:
        """Free everything, when the child is gone."""
        for handle in (self._alarm, self._settling):
            if handle is not None:
                handle.cancel()
        self._stop_reading()
        self.child.close()

    def _write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self.child.connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it is gone: its exit is told
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._loop.add_writer(self.child.connection, self._writable)

    def _writable(self) -> None:
        try:
            del self._unsent[: self.child.connection.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self.child.connection)

    def _readable(self) -> None:
        with suppress(BlockingIOError):
            if not self._read() or self.broken:
                self._stop_reading()

    def _read(self) -> bool:
        """Take in what there is now; False at the end of the stream, BlockingIOError when there is nothing."""
        try:
            data = self.child.connection.recv(READ_BYTES)
        except ConnectionError:
            return False
        try:
            bodies = self._frames.feed(data)
            if bodies:
                self._take_in(bodies)
        except (BrokenStreamError, CodecError, LookupError, TypeError, ValueError):
            # The target wrote to our socket: nothing more of this child can be believed.
            self.broken = True
            self.kill()
        return bool(data)

    def _take_in(self, bodies: list[bytes]) -> None:
        now = time.monotonic()
        mean_s = (now - self._since) / len(bodies)
        self._since = self.idle_since = now
        for body in bodies:
            code, value, started_ns, took_ns = unpack(body)
            call = self._sent.popleft()
            self._first += 1
            if call is not None:
                self._settle(call, code, Timed(value, started_ns / 1e9, took_ns / 1e9))
            else:
                self._returned()
        self._owner.answered(len(bodies), mean_s)

    def _settle(self, call: Call, code: int, timed: Timed) -> None:
        if code == RETURNED:
            self._owner.take_back([call])
        elif not call.answer.done():
            if code == DONE:
                call.answer.set_result(timed)
            elif code == REFUSED:
                call.answer.set_exception(TargetError(call.target, str(timed.value)))
            elif type(timed.value) is OperationError:
                call.answer.set_exception(OperationFailedError(timed.value, timed[1:]))
            else:
                raise TypeError

    def _returned(self) -> None:
        self._returning -= 1
        if not self._returning:
            self._numbers[Cell.LIMIT] = NO_LIMIT

    def _take_back(self) -> None:
        self._settling = None
        if self._dying:
            return
        begun = max(0, self._numbers[Cell.RUNNING] + 1 - self._first)
        calls = list(self._sent)
        kept, taken = calls[:begun], calls[begun:]
        back = [call for call in taken if call is not None]
        self._sent = deque([*kept, *[None] * len(taken)])
        self._returning = len(taken)
        if not taken:
            self._numbers[Cell.LIMIT] = NO_LIMIT
        if kept and kept[0] is not None and kept[0].answer.done():
            self.kill(kept[0])  # it was cancelled, and has begun all the same
        self._owner.take_back(back)

    def _set_alarm(self, seconds: float) -> None:
        if self._alarm is not None:
            if self._alarm.when() <= self._loop.time() + seconds:
                return
            self._alarm.cancel()
        self._alarm = self._loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._dying or not self._sent:
            return
        now = time.monotonic()
        due = min((now + call.timeout_s for call in self._sent if call and call.timeout_s), default=now + START_WAIT_S)
        call = self._sent[0]
        if call is not None and self._numbers[Cell.RUNNING] == self._first:
            if call.timeout_s is not None:
                due = min(due, self._numbers[Cell.STARTED] / 1e9 + call.timeout_s)
                if due <= now:
                    self.expired = True
                    self.kill(call)
                    return
        elif self._numbers[Cell.RUNNING] < self._first and now - self._since > START_WAIT_S:
            self.kill()
            return
        self._set_alarm(max(due - now, 0.001))

    def _exited(self) -> None:
        self._dying = True
        with suppress(BlockingIOError):
            while self._reading and not self.broken and self._read():
                pass
        self._stop_reading()
        self._owner.ended(self)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self.child.connection)
            self._loop.remove_writer(self.child.connection)
