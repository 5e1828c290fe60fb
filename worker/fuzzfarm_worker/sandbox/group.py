"""The calls of one module: its zygote, its children, and what waits for them.

Short calls share a child, which is sent as many ahead as it runs in a few milliseconds. While calls are stuck in long
ones, children are added: three for each that waits for something, but of those that compute no more than the sandbox
allows, because they would only slow each other down.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from fuzzfarm_shared.log import get_logger
from fuzzfarm_shared.targets import import_failure
from fuzzfarm_worker.failures import ending_name
from fuzzfarm_worker.processes import GuardianLostError, Limits, ProcessManager
from fuzzfarm_worker.sandbox.caller import Call, Caller
from fuzzfarm_worker.sandbox.deaths import death_of, lost_with_worker, never_began
from fuzzfarm_worker.sandbox.errors import ModuleRefusedError, SandboxError
from fuzzfarm_worker.sandbox.link import ZygoteLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzzfarm_worker.processes.pipes import Pipes

SERVE = "fuzzfarm_worker.sandbox.serving:serve_calls"
"""What children do."""

AHEAD_S = 0.005
"""Work that a child is sent ahead: what the event loop may need to come round."""

MOST_AHEAD = 1_024
"""Calls that a child is sent ahead, however short they are."""

STUCK_S = 0.02
"""A call that takes longer holds up those behind it: a fork is ten times faster."""

LOOK_S = 0.02
"""How often stuck children are looked for, while something waits behind them."""

REINFORCEMENT = 3
"""Children are multiplied by this while they wait for something, as the lanes of a run are."""

MOST_CHILDREN = 200
"""Children of one module. The worker holds four descriptors for each, of the 1,024 that a process often has."""

MOST_BARREN = 3
"""So many children or zygotes in a row that end before they answer anything: what waits for them gets an error."""

NO_GROWTH_S = 1.0
"""How long no child is added after one that could not be: the host is short of something."""

RESTART_S = 0.1
"""Wait before a child is forked after one that ended without an answer; doubles with each."""


log = get_logger(__name__)


class Owner(Protocol):
    """What a group uses of its sandbox."""

    processes: ProcessManager
    pipes: Pipes

    def may_compute(self) -> int:
        """How many more children may compute."""
        ...

    def loaded(self, module: str) -> None:
        """Note that a module can be imported."""
        ...

    def refuse(self, module: str, error: ModuleRefusedError) -> None:
        """Note that a module cannot be imported."""
        ...


class Group:
    """Runs calls of one module in children that are held to the same limits.

    Attributes:
        callers: its children.
        idle_since: monotonic time of the last answer.
    """

    def __init__(self, owner: Owner, module: str, limits: Limits) -> None:
        self.callers: set[Caller] = set()
        self.idle_since = time.monotonic()
        self._owner = owner
        self._module = module
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Call] = deque()
        self._mean_s: float | None = None
        self._pumping = False
        self._watch: asyncio.TimerHandle | None = None
        self._forking = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._link: ZygoteLink | None = None
        self._link_lock = asyncio.Lock()
        self._barren = 0
        self._grow_after = 0.0
        self._closing = False

    @property
    def busy(self) -> bool:
        """Whether it has calls, or starts children for some."""
        return bool(self._waiting) or self._forking > 0 or any(caller.busy for caller in self.callers)

    def submit(self, call: Call) -> None:
        """Run a call as soon as a child has room; those of one turn of the event loop travel together."""
        if not self._waiting:
            for caller in self.callers:
                if caller.free:  # at once: another turn of the event loop would take a quarter of a call's time
                    caller.send([call])
                    return
        self._waiting.append(call)
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    async def cancel(self, call: Call) -> None:
        """Keep a call from running whose answer is done: kill the child that runs it, and wait for its end."""
        caller = call.caller
        if caller is None or caller not in self.callers:
            return  # it waits, and is passed over
        if caller.runs(call):
            caller.kill(call)
            await asyncio.shield(asyncio.wait([caller.child.exited]))
        else:
            caller.recall()

    def end_idle_children(self, idle_s: float) -> None:
        """End children without a call for so long."""
        before = time.monotonic() - idle_s
        for caller in self.callers:
            if not caller.busy and caller.idle_since < before:
                caller.kill()

    async def close(self) -> None:
        """End its zygote and all its children; calls that are left are cancelled."""
        self._closing = True
        if self._watch is not None:
            self._watch.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for caller in self.callers:
            caller.kill()
        if self._link is not None:
            await self._link.stop()
        for call in self._take_waiting():
            call.answer.cancel()

    def answered(self, count: int, mean_s: float) -> None:
        """See `caller.Owner`."""
        weight = 1.0 if self._mean_s is None else min(1.0, count / 10)
        self._mean_s = mean_s * weight + (self._mean_s or 0.0) * (1.0 - weight)
        self._barren = 0
        self.idle_since = time.monotonic()
        if self._waiting:
            self._pump()

    def take_back(self, calls: list[Call]) -> None:
        """See `caller.Owner`."""
        for call in calls:
            call.caller = None
        self._waiting.extendleft(reversed(calls))
        self._pump()

    def ended(self, caller: Caller) -> None:
        """See `caller.Owner`."""
        self.callers.discard(caller)
        running, unstarted = caller.split()
        if running is not None:
            self._barren = 0
            if self._closing:
                running.answer.cancel()
            elif not running.answer.done():
                running.answer.set_exception(death_of(caller, running))
        caller.close()
        self.take_back(unstarted)
        if unstarted and running is None:
            self._note_barren(ending_name(caller.child.exited.result().returncode), caller.child.printed())

    def _pump(self) -> None:
        """Send what waits to children that have room, and see that there are children."""
        self._pumping = False
        if self._closing:
            return
        most = self._ahead
        for caller in self.callers:
            room = caller.room(most)
            if room > 0 and (calls := self._next(room)):
                caller.send(calls)
            if not self._waiting:
                break
        if self._waiting and not self.callers and not self._forking:
            self._add_caller()
        self._look_later()

    @property
    def _ahead(self) -> int:
        if self._mean_s is None:
            return 1
        return max(1, min(MOST_AHEAD, int(AHEAD_S / max(self._mean_s, 1e-9))))

    def _next(self, count: int) -> list[Call]:
        calls: list[Call] = []
        while self._waiting and len(calls) < count:
            call = self._waiting.popleft()
            if not call.answer.done():
                calls.append(call)
        return calls

    def _take_waiting(self) -> list[Call]:
        return self._next(len(self._waiting))

    def _look_later(self) -> None:
        if self._watch is None and (self._waiting or any(caller.queued for caller in self.callers)):
            self._watch = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """Free calls that are stuck behind a long one; add children when all are stuck, or none of them computes."""
        self._watch = None
        now = time.monotonic()
        stuck = [caller for caller in self.callers if caller.stuck(now, STUCK_S)]
        for caller in stuck:
            if caller.queued:
                caller.recall()
        computing = sum(caller.computing(now) for caller in self.callers)
        all_stuck = len(stuck) == len(self.callers)
        if self.callers and (all_stuck or not computing) and not self._forking and now > self._grow_after:
            if all_stuck:
                self._mean_s = None
            behind = len(self._waiting) + sum(caller.queued for caller in stuck)
            room = REINFORCEMENT * len(self.callers) if not computing else self._owner.may_compute()
            for _ in range(min(behind, room, MOST_CHILDREN - len(self.callers))):
                self._add_caller()
        self._pump()

    def _add_caller(self) -> None:
        self._forking += 1
        task = self._loop.create_task(self._fork())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fork(self) -> None:
        try:
            if self._barren:
                await asyncio.sleep(RESTART_S * 2**self._barren)
            link = await self._live_zygote()
            child = await link.fork(self._owner.pipes, self._limits)
        except ModuleRefusedError as exc:
            self._owner.refuse(self._module, exc)
            reason = str(exc)
            self._fail_waiting(lambda call: import_failure(call.target, reason))
        except SandboxError as exc:
            self._note_barren(str(exc))
        except Exception as exc:  # noqa: BLE001 - whatever it is, no call may wait for ever
            self._cannot_fork(exc)
        else:
            self.callers.add(Caller(child, self))
        finally:
            self._forking -= 1
        self._pump()

    async def _live_zygote(self) -> ZygoteLink:
        async with self._link_lock:
            if self._link is None or not self._link.alive:
                if self._link is not None:
                    await self._link.stop()
                self._link = await ZygoteLink.start(self._owner.processes, self._module, SERVE)
                self._owner.loaded(self._module)
            return self._link

    def _note_barren(self, how: str, printed: str = "") -> None:
        self._barren += 1
        if self._barren >= MOST_BARREN and not self.callers:
            self._barren = 0
            self._fail_waiting(lambda _: never_began(how, printed))

    def _cannot_fork(self, exc: Exception) -> None:
        """Go on with the children there are; without any, what waits gets the error."""
        if self.callers:
            log.warning("a child cannot be added", module=self._module, reason=str(exc))
            self._grow_after = time.monotonic() + NO_GROWTH_S
        else:
            lost = isinstance(exc, GuardianLostError)
            self._fail_waiting(lambda _: lost_with_worker(str(exc)) if lost else exc)

    def _fail_waiting(self, error_of: Callable[[Call], Exception]) -> None:
        for call in self._take_waiting():
            call.answer.set_exception(error_of(call))
