"""AsyncFuzzExecutor: operations with bounded concurrency, timeouts and collected errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from fuzzfarm_worker.executors.examples import ExampleSource
from fuzzfarm_worker.executors.kernel import Kernel, KernelStats

if TYPE_CHECKING:
    from types import TracebackType

    from hypothesis.strategies import SearchStrategy

    from fuzzfarm_worker.executors.calls import Call

_MISSING = object()

Key = TypeVar("Key", bound=Hashable)

# Function, positional arguments, keyword arguments.
Operation: TypeAlias = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]

# Enough to overlap a few requests without flooding a service that is being fuzzed.
MAX_CONCURRENCY = 5
# Half a minute: what a single request of a slow service takes at most.
TIMEOUT_S = 30.0
# One more try tells a hiccup from a failure.
RETRY_COUNT = 1
RETRY_DELAY_S = 1.0
# The patience of an orchestrator that stops a process is often 10 s; half of it is left.
SHUTDOWN_TIMEOUT_S = 5.0


class AsyncFuzzExecutor:
    """Runs operations, at most `max_concurrency` at once, whoever submits them.

    An operation is a coroutine function, a callable object, a partial, a lambda that returns
    an awaitable, or a sync function, which runs in a daemon thread. Whatever it raises is its
    own error, be it SystemExit. Use it as `async with`, or call `shutdown()`.

    Args:
        max_concurrency: slots shared by everything this executor runs at one time.
        timeout: seconds for one try of one operation, counted from its start; None for no limit.
        retry_count: tries of `execute_with_retry` after the first.
        retry_delay: seconds before the first retry; doubled before each further one.
    """

    def __init__(
        self,
        max_concurrency: int = MAX_CONCURRENCY,
        timeout: float | None = TIMEOUT_S,
        retry_count: int = RETRY_COUNT,
        retry_delay: float = RETRY_DELAY_S,
    ) -> None:
        self.max_concurrency = max_concurrency
        self.timeout = timeout
        self.retry_count = retry_count
        self.retry_delay = retry_delay
        self._kernel = Kernel(max_concurrency)
        # A strategy is no operation: it takes none of the slots, but one thread of its own.
        self._drawing = Kernel(1)
        self._examples = ExampleSource()
        self._is_shut_down = False

    async def execute(
        self, operation: Callable[..., Any], *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Run one operation, once, and return its value or raise its error.

        `timeout` in seconds overrides the executor's. Raises OperationTimeoutError (a
        TimeoutError) when it passes, RuntimeError after shutdown. Cancelling the caller
        cancels the operation.
        """
        limit = self.timeout if timeout is None else timeout
        return await self._one(self._kernel, (0, operation, args, kwargs, limit, 0, 0.0))

    async def execute_with_retry(
        self,
        operation: Callable[..., Any],
        *args: Any,
        retry_count: int | None = None,
        retry_delay: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run one operation, and again after a failure, up to `retry_count` more times.

        Before retry n (from 0) it waits `retry_delay * 2**n` seconds or, by a random quarter,
        longer, and holds no slot meanwhile. A timeout counts as a failure, a cancellation is
        not retried. The last error is raised with the earlier ones as notes.
        """
        retries = self.retry_count if retry_count is None else retry_count
        delay_s = self.retry_delay if retry_delay is None else retry_delay
        return await self._one(self._kernel, (0, operation, args, kwargs, self.timeout, retries, delay_s))

    async def execute_batch(
        self, operations: Iterable[Operation], collect_results: bool = True, collect_errors: bool = True
    ) -> dict[str, list[Any]]:
        """Run `(function, args, kwargs)` operations and collect what became of them.

        Returns `{"results": [...], "errors": [...]}`, both always there and each in the order
        of the input; errors are the exceptions. Operations are pulled when they can start, and
        never retried. What is not collected costs no memory. Cancelling the call cancels its
        operations. Raises RuntimeError after shutdown.
        """
        values, errors = await self._collect(operations, collect_results, collect_errors)
        return {"results": [value for value in values if value is not _MISSING], "errors": list(errors.values())}

    async def execute_keyed(self, operations: Mapping[Key, Operation]) -> dict[str, dict[Key, Any]]:
        """Run keyed operations; returns `{"results": {...}, "errors": {...}}` by the same keys."""
        values, errors = await self._collect(operations.values(), True, True)
        keys = list(operations)
        return {
            "results": {key: value for key, value in zip(keys, values, strict=True) if value is not _MISSING},
            "errors": {keys[index]: error for index, error in errors.items()},
        }

    async def run_hypothesis_strategy(self, strategy: SearchStrategy[Any]) -> Any:
        """Draw one example of a Hypothesis strategy, in a thread; many tasks may do so at once.

        The executor's timeout holds for the drawing itself. Raises what the strategy raises.
        """
        call: Call = (0, self._examples.example, (strategy,), None, self.timeout, 0, 0.0)
        return await self._one(self._drawing, call)

    def stats(self) -> KernelStats:
        """What runs now, and what hung operations left behind."""
        return self._kernel.stats()

    async def shutdown(self, timeout: float = SHUTDOWN_TIMEOUT_S) -> None:
        """Refuse new operations, wait up to `timeout` seconds for running ones, cancel the rest.

        Whoever waits for a cancelled operation or batch gets CancelledError. A sync operation
        that hangs keeps its daemon thread, but neither this call nor the interpreter.
        """
        self._is_shut_down = True
        kernels = (self._kernel, self._drawing)
        try:
            async with asyncio.timeout(timeout):
                for kernel in kernels:
                    await kernel.wait_idle()
        except TimeoutError:
            for kernel in kernels:
                kernel.stop_all()
            for kernel in kernels:
                await kernel.wait_idle()
        finally:
            for kernel in kernels:
                kernel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown()

    async def _collect(
        self, operations: Iterable[Operation], collect_values: bool, collect_errors: bool
    ) -> tuple[list[Any], dict[int, BaseException]]:
        """The values in input order, `_MISSING` where there is none, and the errors by position."""
        self._refuse_after_shutdown()
        at_hand = [_MISSING] * len(operations) if isinstance(operations, Sized) else None
        values: dict[int, Any] = {}
        errors: dict[int, BaseException] = {}

        def record(index: int, ok: bool, value: Any, *_: Any) -> None:
            if ok and collect_values:
                values[index] = value
            elif collect_errors and not ok:
                errors[index] = value

        await self._kernel.run(self._numbered(operations), record, values=at_hand if collect_values else None)
        in_order = [values[index] for index in sorted(values)] if at_hand is None else at_hand
        return in_order, {index: errors[index] for index in sorted(errors)}

    def _numbered(self, operations: Iterable[Operation]) -> Iterator[Call]:
        timeout = self.timeout
        for index, (fn, args, kwargs) in enumerate(operations):
            yield (index, fn, args, kwargs, timeout, 0, 0.0)

    async def _one(self, kernel: Kernel, call: Call) -> Any:
        self._refuse_after_shutdown()
        outcome: list[tuple[bool, Any]] = []
        await kernel.run(iter((call,)), lambda _index, ok, value, *_: outcome.append((ok, value)))
        ok, value = outcome.pop()
        if ok:
            return value
        try:
            raise value
        finally:
            del value  # the traceback holds this frame, which must not hold the error

    def _refuse_after_shutdown(self) -> None:
        if self._is_shut_down:
            raise RuntimeError("the executor has been shut down")
