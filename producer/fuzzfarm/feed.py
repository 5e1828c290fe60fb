"""The input of a submit as one stream: operations and groups, from any iterable or async iterable."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, Iterable, Iterator
from enum import Enum
from itertools import chain, islice
from types import TracebackType
from typing import Any, Final, Self

from fuzzfarm_shared.errors import InvalidOperationError
from fuzzfarm_shared.operations import AnyOperation, CallGroup, CallOperation, FuzzOperation, Operation, SubprocessJob
from fuzzfarm_shared.payloads import PayloadBuilder

Operations = Iterable[AnyOperation | CallGroup] | AsyncIterable[AnyOperation | CallGroup] | CallGroup
"""What `submit` takes."""

FLUSH_AFTER_S = 0.05
"""When async input pauses for so long, what has come is sent."""

READ_AHEAD = 1_000
"""Items of async input that are read before they are needed."""


class End(Enum):
    """Stands behind the last item; None is an item too, and a wrong one."""

    END = "end"


END: Final = End.END


_ITEMS = (CallOperation, SubprocessJob, FuzzOperation, CallGroup)
"""Made once: a union written in the check itself costs 0.5 us per operation."""


class PayloadFeed(ABC):
    """What a submission reads its payloads from; a context manager."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(  # noqa: B027 - most have nothing to close
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop reading."""

    @abstractmethod
    async def fill(self, builder: PayloadBuilder, limit: int, *, patient: bool = False) -> bool:
        """Append up to `limit` operations, at least one unless the input ends; True at the known end of the input.

        Args:
            builder: takes the operations.
            limit: how many it may take.
            patient: wait until the payload is full.
        """

    def close(self) -> None:  # noqa: B027 - as above
        """Say that no more is wanted: a `fill` that waits for input ends."""


class Feed(PayloadFeed):
    """Reads operations from any input; async input is read by a task."""

    def __init__(self, operations: Operations) -> None:
        self.source = operations
        self._pump: _Pump | None = None
        self._pending: deque[AnyOperation | CallGroup] = deque()
        self._group: tuple[CallGroup, Iterator[list[Any]]] | None = None
        self._iterator: Iterator[AnyOperation | CallGroup] = iter(())
        if isinstance(operations, CallGroup):
            self._iterator = iter([operations])
        elif isinstance(operations, AsyncIterable):
            self._pump = _Pump(operations)
        elif isinstance(operations, Iterable) and not isinstance(operations, str | bytes | dict | Operation):
            self._iterator = iter(operations)
        else:
            raise InvalidOperationError(
                f"submit takes an iterable of operations, not {type(operations).__name__}: put a single one into a list"
            )

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pump is not None:
            await self._pump.aclose()

    async def fill(self, builder: PayloadBuilder, limit: int, *, patient: bool = False) -> bool:
        """Append up to `limit` operations; True when the input is known to be at its end.

        A fuzz operation has a payload of its own. Async input that pauses gives a shorter payload, unless `patient`.
        """
        while self._fill_now(builder, limit):
            if self._pump is None:
                return True
            impatient = len(builder) and not patient
            items = await self._pump.take(limit - len(builder), FLUSH_AFTER_S if impatient else None)
            if items is None:
                return True
            if not items:
                return False
            self._pending.extend(items)
        return self._pump is None and self._at_end()

    def _at_end(self) -> bool:
        """Look one item ahead, so that the last payload can seal the batch."""
        if self._group is not None:
            group, arguments = self._group
            ahead = list(islice(arguments, 1))
            self._group = (group, chain(ahead, arguments)) if ahead else None
            if ahead:
                return False
        item = self._next_item()
        if item is END:
            return True
        self._pending.appendleft(item)
        return False

    def _fill_now(self, builder: PayloadBuilder, limit: int) -> bool:
        """Append what is at hand; True when nothing more is, False when the payload is full."""
        while len(builder) < limit and not builder.full_of_specs:
            if self._group is not None:
                self._fill_from_group(builder, limit)
                continue
            item = self._next_item()
            if item is END:
                return True
            if isinstance(item, CallGroup):
                self._group = (item, item.arguments())
            elif isinstance(item, FuzzOperation) and len(builder):
                self._pending.appendleft(item)
                return False
            else:
                builder.add(item)
                if isinstance(item, FuzzOperation):
                    return False
        return False

    def _fill_from_group(self, builder: PayloadBuilder, limit: int) -> None:
        assert self._group is not None  # noqa: S101 - the caller looked
        group, arguments = self._group
        some = list(islice(arguments, limit - len(builder)))
        if some:
            builder.add_calls(group, some)
        else:
            self._group = None

    def _next_item(self) -> AnyOperation | CallGroup | End:
        item = self._pending.popleft() if self._pending else next(self._iterator, END)
        return item if item is END else checked_item(item)


def checked_item(item: Any) -> AnyOperation | CallGroup:
    """Return one item of the input; raises InvalidOperationError for what is neither an operation nor a group."""
    if isinstance(item, _ITEMS):
        return item
    raise InvalidOperationError(
        f"{type(item).__name__} is no operation: make a CallOperation, FuzzOperation or SubprocessJob of it"
    )


class _Pump:
    """Reads an async iterable in one task, a bounded number of items ahead."""

    def __init__(self, source: AsyncIterable[AnyOperation | CallGroup]) -> None:
        self._source = source
        self._items: deque[AnyOperation | CallGroup] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def take(self, limit: int, patience_s: float | None) -> list[AnyOperation | CallGroup] | None:
        """Return some items; [] when none came within `patience_s`, None at the end; raises what the input raised."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        while not self._items:
            if self._task.done():
                self._task.result()
                return None
            self._changed.clear()
            try:
                async with asyncio.timeout(patience_s):
                    await self._changed.wait()
            except TimeoutError:
                return []
        taken = [self._items.popleft() for _ in range(min(limit, len(self._items)))]
        self._room.set()
        return taken

    async def aclose(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            async for item in self._source:
                self._items.append(item)
                self._changed.set()
                while len(self._items) >= READ_AHEAD:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._changed.set()
