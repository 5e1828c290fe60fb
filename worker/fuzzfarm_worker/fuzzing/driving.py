"""Driving a shard: gives it children, watches them, buries the dead, and goes on with the next example."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from fuzzfarm_shared.operations import FuzzOperation
from fuzzfarm_worker.fuzzing.interpreter import Death, Interpreter
from fuzzfarm_worker.fuzzing.shards import Shard, State

REPORT_S = 0.2
"""Seconds between two progress reports: below the quarter second that callers may count on."""

TICK_S = 0.05
"""Seconds between two looks at a running child; a hang is seen that much late."""

STOP_GRACE_S = 1.0
"""How long a child may take to end its current example when its shard is closed, before it is killed."""

DESCRIBE_EXTRA_S = 5.0
"""Allowance beyond the example's own limit for telling what a killing example was, on a busy host."""


class Supply(Protocol):
    """Where a drive gets children from, and gives them back."""

    async def ready(self, operation: FuzzOperation) -> Interpreter:
        """Return an idle child that has the target of an operation."""
        ...

    def keep(self, child: Interpreter, operation: FuzzOperation) -> None:
        """Take back an idle child."""
        ...

    def retire(self, child: Interpreter) -> None:
        """Kill a child now, and wait for its end by and by."""
        ...

    def own(self, task: asyncio.Task[None]) -> None:
        """Wait for a task before the supply ends."""
        ...


class Drive:
    """One shard on its way, with at most one child at a time."""

    def __init__(self, supply: Supply, shard: Shard, over: Callable[[], bool]) -> None:
        """Prepare; `step` starts it, and ends it when it is over."""
        self._supply = supply
        self._shard = shard
        self._over = over
        self._child: Interpreter | None = None
        self._starting: asyncio.Task[Interpreter] | None = None
        self._death: Death | None = None

    async def step(self) -> bool:
        """Go on until progress is due; return False when the shard has ended.

        Raises:
            TargetError: when the target cannot be fuzzed.
            RuntimeError: when children die without running an example.
        """
        shard = self._shard
        while not shard.due(REPORT_S):
            if self._over():
                shard.end_soon(self._child)
            if self._child is None:
                if self._starting is None and self._death is None and not shard.unfinished:
                    return False
                await self._start()
                continue
            match shard.poll(self._child):
                case State.RUNNING:
                    self._child.bound_output()
                    await self._child.channel.wait(TICK_S)
                case State.DONE:
                    self._give_back(self._child)
                    return False
                case state:
                    await self._bury(self._child, hung=state is State.HUNG)
        return True

    async def _start(self) -> None:
        """Go on getting a child, for a tick at most."""
        self._starting = self._starting or asyncio.create_task(self._ready())
        await asyncio.wait({self._starting}, timeout=TICK_S)
        if self._starting.done():
            done, self._starting = self._starting, None
            self._child = done.result()
            self._shard.begin(self._child)

    async def _ready(self) -> Interpreter:
        """Return a child; with it, tell the shard which example killed the one before."""
        operation = self._shard.operation
        child = await self._supply.ready(operation)
        death, self._death = self._death, None
        if death is None or death.index is None:
            return child
        try:
            limit_s = operation.example_timeout_s + DESCRIBE_EXTRA_S
            described = await child.describe(operation.seed, death.index, limit_s)
        except BaseException:
            self._supply.retire(child)
            raise
        self._shard.killed_by(death, described, child)
        if described is not None:
            return child
        self._supply.retire(child)
        return await self._supply.ready(operation)

    async def _bury(self, child: Interpreter, *, hung: bool) -> None:
        """See a child out that died, or that hangs."""
        example = child.recorder.running
        if hung:
            await child.dump_stack()
            child.kill()
        await child.exited()
        self._shard.poll(child)
        death = child.death(hung=hung)
        child.recorder.end()
        self._child = None
        self._supply.retire(child)
        ended_just_in_time = hung and example is not None and death.index != example
        if not ended_just_in_time and self._shard.bury(death):
            self._death = death

    def _give_back(self, child: Interpreter) -> None:
        self._child = None
        child.recorder.end()
        self._supply.keep(child, self._shard.operation)

    async def stop(self) -> None:
        """End after the current example and keep the child, or kill it when it does not answer in time."""
        child = self._child
        if child is None:
            return
        child.ask_to_stop()
        loop = asyncio.get_running_loop()
        until = loop.time() + STOP_GRACE_S
        while (left := until - loop.time()) > 0 and not child.dead:
            await child.channel.wait(left)
            while (message := child.channel.pop()) is not None:
                if message[0] == "done":
                    self._give_back(child)
                    return

    def abandon(self) -> None:
        """Kill what still runs; nothing of the shard runs after this."""
        if self._child is not None:
            self._child.recorder.end()
            self._supply.retire(self._child)
            self._child = None
        if self._starting is not None:
            self._supply.own(asyncio.create_task(self._undo(self._starting)))
            self._starting = None

    async def _undo(self, starting: asyncio.Task[Interpreter]) -> None:
        starting.cancel()
        await asyncio.wait({starting})
        if not starting.cancelled() and starting.exception() is None:
            self._supply.retire(starting.result())
