"""What the kernel is given to run, and how it treats it."""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple, TypeAlias

# A bare tuple, since one is made for every operation and a class costs three times as much:
# index (no two calls of a run have the same; handed back to `record`), function, arguments,
# keyword arguments, timeout_s, retries, retry_delay_s.
Call: TypeAlias = tuple[Any, Callable[..., Any], Sequence[Any], Mapping[str, Any] | None, float | None, int, float]

# index, ok, value or exception, attempt (from 1), started (time.monotonic), duration_s.
Record: TypeAlias = Callable[[Any, bool, Any, int, float, float], None]

# Up to a quarter longer: enough to spread retries of operations that failed together,
# and never shorter than what the caller asked for.
JITTER = 0.25

# 2**30 seconds is 34 years; beyond that a float of seconds serves no timer.
MAX_DOUBLINGS = 30


class Pulled(NamedTuple):
    """A call that was pulled but waits for a lane: a retry, or an awaitable that a thread returned."""

    call: Call
    attempt: int
    awaitable: Any = None
    started: float = 0.0


class Retry(int):
    """The number of an attempt after the first, which remembers how the earlier ones failed."""

    failures: tuple[str, ...]

    @classmethod
    def after(cls, attempt: int, error: BaseException) -> Retry:
        """The attempt that follows `attempt`, which ended in `error`."""
        retry = cls(attempt + 1)
        retry.failures = (*failures_before(attempt), f"attempt {attempt:d}: {type(error).__name__}: {error}")
        return retry


def failures_before(attempt: int) -> tuple[str, ...]:
    """How the attempts before `attempt` failed, a line for each."""
    return attempt.failures if isinstance(attempt, Retry) else ()


def runs_on_loop(fn: Callable[..., Any]) -> bool:
    """Whether calling `fn` gives a coroutine, so that it runs on the event loop and needs no thread."""
    if type(fn) is FunctionType:
        # Most functions end here, ten times as fast as by `inspect`.
        if fn.__code__.co_flags & inspect.CO_COROUTINE:
            return True
        if not fn.__dict__:
            return False
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or (callable(fn) and inspect.iscoroutinefunction(type(fn).__call__))


def backoff_s(retry_delay_s: float, attempt: int) -> float:
    """Seconds to wait after failed `attempt` (from 1): exponential, with a jitter that only lengthens."""
    doubled: float = retry_delay_s * 2 ** min(attempt - 1, MAX_DOUBLINGS)
    return doubled * (1 + JITTER * random.random())


def may_retry(call: Call, attempt: int, error: BaseException) -> bool:
    """Whether `attempt` of `call` that ended in `error` is followed by another; cancellation never is."""
    return attempt <= call[5] and isinstance(error, Exception)
