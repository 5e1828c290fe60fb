"""Results in the order of the input, through a bounded window; the same for one process and for a farm."""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, Self, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Window(Protocol[T_co]):
    """The part of a lazy input that is between being read and being handed out."""

    def start(self) -> asyncio.Task[None]:
        """Begin to read and run; return the task that ends with all of it. Called once, by the first step."""
        ...

    async def following(self) -> T_co:
        """Return the next value in the order of the input, or raise its error; StopAsyncIteration after the last."""
        ...

    def stop(self) -> None:
        """Cancel what is left; nothing happens when it has ended."""
        ...


def surfaced(error: BaseException) -> BaseException:
    """Return what to raise for an error: a StopAsyncIteration would end the loop unseen, so it becomes a RuntimeError.

    The rule of PEP 479, for a class.
    """
    if not isinstance(error, StopAsyncIteration):
        return error
    instead = RuntimeError("an operation or its input raised StopAsyncIteration")
    instead.__cause__ = error
    return instead


class OrderedResults(Generic[T]):
    """An async iterator over results in the order of the input; the first error ends it.

    Nothing runs before its first step. Leaving it early, by `break`, an error, `aclose()` or by dropping it, cancels
    what is left.
    """

    def __init__(self, window: Window[T]) -> None:
        # What runs knows the window and not this iterator, so that dropping it ends what runs.
        self._window = window
        self._owner: asyncio.Task[None] | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        if self._owner is None:
            self._owner = self._window.start()
        try:
            return await self._window.following()
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Cancel what is left and wait until it is gone."""
        self._closed = True
        if self._owner is not None:
            self._window.stop()
            await asyncio.wait([self._owner])

    def __del__(self) -> None:
        if self._owner is not None and not self._owner.done() and not self._owner.get_loop().is_closed():
            # Whichever thread collects the garbage: stopping belongs to the loop's.
            self._owner.get_loop().call_soon_threadsafe(self._window.stop)
