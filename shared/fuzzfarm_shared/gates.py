"""Calls that wait for a semaphore before they are queued or sent; the same for one process and for a farm."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzzfarm_shared.futures import AsyncFuture

Call = TypeVar("Call", bound=tuple[Any, ...])
"""Whatever an executor calls a call; its first entry is its future."""


class Gates(Generic[Call]):
    """One keeper task per semaphore in use, however many operations wait for it.

    Args:
        passed: called with a call whose future now holds its semaphore, which is released when
            the future is done.
        failed: called with a call and the error of a semaphore that could not be acquired.
    """

    def __init__(self, passed: Callable[[Call], None], failed: Callable[[Call, Exception], None]) -> None:
        self._passed = passed
        self._failed = failed
        self._waiting: dict[asyncio.Semaphore, OrderedDict[AsyncFuture[Any], Call]] = {}
        self._keepers: set[asyncio.Task[None]] = set()

    @property
    def keepers(self) -> tuple[asyncio.Task[None], ...]:
        """The tasks that pass calls on; none when no call waits."""
        return tuple(self._keepers)

    @property
    def empty(self) -> bool:
        """Whether no call waits here."""
        return not any(self._waiting.values())

    def pass_through(self, semaphore: asyncio.Semaphore, call: Call) -> None:
        """Pass the call on when the semaphore is free, in the order of submission."""
        if semaphore in self._waiting:
            self._waiting[semaphore][call[0]] = call
            return
        self._waiting[semaphore] = OrderedDict({call[0]: call})
        keeper = asyncio.get_running_loop().create_task(self._keep(semaphore))
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)

    def remove(self, future: AsyncFuture[Any]) -> bool:
        """Take a waiting call out; False if it does not wait here."""
        return any(waiting.pop(future, None) is not None for waiting in self._waiting.values())

    def clear(self) -> list[Call]:
        """Take every waiting call out."""
        calls = [call for waiting in self._waiting.values() for call in waiting.values()]
        self._waiting.clear()
        for keeper in tuple(self._keepers):
            if not keeper.get_loop().is_closed():
                keeper.cancel()
        return calls

    async def _keep(self, semaphore: asyncio.Semaphore) -> None:
        waiting = self._waiting[semaphore]
        try:
            while waiting:
                await semaphore.acquire()
                if not waiting:  # cancelled meanwhile
                    semaphore.release()
                    return
                future, call = waiting.popitem(last=False)
                future.add_done_callback(lambda _: semaphore.release())
                self._passed(call)
        except Exception as exc:  # noqa: BLE001 - of the user's semaphore: it is the operations' error
            for call in waiting.values():
                self._failed(call, exc)
        finally:
            if self._waiting.get(semaphore) is waiting:
                del self._waiting[semaphore]
