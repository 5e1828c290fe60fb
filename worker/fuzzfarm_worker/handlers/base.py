"""What every handler is and what it may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_worker.allowlist import AllowList
from fuzzfarm_worker.processes import ProcessManager
from fuzzfarm_worker.sandbox import Sandbox


class RefusedError(BaseException):
    """Raised instead of running an operation that this worker cannot run, so that others get it.

    No Exception, because that would be retried here.

    Attributes:
        error: why it cannot.
    """

    def __init__(self, error: TargetError) -> None:
        self.error = error
        super().__init__(str(error))


@dataclass(frozen=True, slots=True)
class Tools:
    """What the handlers of one worker share."""

    allowed: AllowList
    processes: ProcessManager
    sandbox: Sandbox


@dataclass(frozen=True, slots=True)
class Handler:
    """Runs operations that share their options.

    Attributes:
        function: called with the arguments of each operation; a coroutine function or a sync one. It may raise
            RefusedError where only running shows that this worker cannot, and return `Timed` where it knows better
            than the kernel when it ran.
        arguments: makes positional and keyword arguments of the two fields in which operations differ; raises
            TargetError for an operation that may not or cannot run on this worker.
        timeout_s: seconds for one try, where the function does not see to that itself.
        retries: further tries.
        retry_delay_s: seconds before the first of them.
        tells: whether the function takes, before its other arguments, what notes a run of it on a `Board`.
    """

    function: Callable[..., Any]
    arguments: Callable[[Any, Any], tuple[Sequence[Any], Mapping[str, Any] | None]]
    timeout_s: float | None
    retries: int
    retry_delay_s: float
    tells: bool = False
