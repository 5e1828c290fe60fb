"""What became of operations: outcomes, errors, the results of each kind, and the state of a batch.

Outcomes and results are slotted frozen dataclasses, because readers build one per operation; what a user asks for
once per batch (`BatchStatus`, `BatchAggregate`) is a frozen pydantic model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from fuzzfarm_shared.schedule import Priority

MAX_HOSTS = 20
"""Hosts that a finding names: enough to see whether it is one host or the farm."""


class ErrorKind(StrEnum):
    """Why an operation has no value."""

    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    KILLED = "killed"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output_limit"
    WORKER_LOST = "worker_lost"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    REJECTED = "rejected"
    UNSUPPORTED = "unsupported"
    INVALID_RESULT = "invalid_result"


@dataclass(frozen=True, slots=True)
class OperationError:
    """Why an operation failed; data only, never a pickled exception.

    Attributes:
        kind: the class of failure.
        type: dotted name of the exception's class, or of what stands for one.
        message: one line or more for people.
        traceback: the formatted traceback, where there is one.
        signal: name of the signal that ended a child ("SIGSEGV"), where one did.
        attempt: the attempt of the chunk that recorded this, counted from 1.
        worker: the worker that recorded this.
    """

    kind: ErrorKind
    type: str
    message: str
    traceback: str | None = None
    signal: str | None = None
    attempt: int = 1
    worker: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.type}: {self.message}" if self.type else f"{self.kind.value}: {self.message}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one operation: a value, or an error.

    Attributes:
        key: the operation's key.
        ok: whether there is a value.
        value: what the operation returned; None when it failed.
        error: why it failed; None when it did not.
        attempt: the attempt of the chunk that recorded this, counted from 1.
        worker: the worker that ran it.
        started_at: start of its last try, seconds since the epoch by the worker's clock.
        duration_s: seconds that its last try took.
    """

    key: str
    ok: bool
    value: Any
    error: OperationError | None
    attempt: int
    worker: str
    started_at: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class SubprocessResult:
    """What a `SubprocessJob` left behind; a non-zero exit code is a result unless `check=True`.

    Attributes:
        exit_code: the exit code, or minus the signal's number.
        stdout: what was kept of the output; str (UTF-8 with replacement), or bytes with `binary=True`.
        stderr: the same for the error output.
        stdout_bytes: how many bytes were written in all.
        stderr_bytes: the same for the error output.
        truncated: whether either stream was longer than `max_output_bytes`.
        duration_s: wall-clock seconds.
        signal: name of the signal that ended it ("SIGKILL"), or None.
        peak_memory_bytes: the largest resident set of the process, where the system tells it.
        cpu_time_s: user and system seconds, where the system tells them.
    """

    exit_code: int
    stdout: str | bytes
    stderr: str | bytes
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool
    duration_s: float
    signal: str | None = None
    peak_memory_bytes: int | None = None
    cpu_time_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A deduplicated failure of a target with the smallest input known to cause it.

    Attributes:
        id: short stable identifier made from target and signature; `fuzzfarm replay ID` takes it.
        target: the target that failed.
        strategy: the strategy that was named, or None for the target's own.
        kind: the class of failure (an exception, a time-out, a child that died, ...).
        type: dotted name of the exception's class, or the signal's name.
        message: the failure's message, bounded.
        location: "file.py:12 in parse", the innermost frame of the user's code, or "".
        signature: what makes two failures one: exception chain and frames of the user's code.
        example: the smallest known input as Python source, as the target would be called with it.
        index: index of that example under `seed`; None when only the choices address it.
        seed: the seed that generated it.
        choices: the generator's encoded choices, which replay the example without seed and index; may be empty.
        traceback: the formatted traceback of that example, bounded.
        count: how often it was seen.
        first_seen: seconds since the epoch.
        last_seen: seconds since the epoch.
        python: version of Python that found it.
        hypothesis: version of Hypothesis that found it.
        replay: a command line that runs the example again.
        output: the end of what the example printed, on both streams.
        example_timeout_s: seconds that one example had.
        limits: those of `ProcessLimits` that the child had, by name.
        network: whether it had the network of its host.
        hosts: names of the hosts on which it was seen, at most `MAX_HOSTS` of them.
        replays: how often the example was run again to confirm it; 0: not yet.
        replay_failures: how often it failed then in the same way.
        inputs: the word that said what is generated, or None.
        command: the program, by its full path, and its arguments; () for a target that is none.
        crash_exit_codes: exit codes of the command that are findings.
        input: what a command was given, byte for byte; None for other targets, and for more than 64 KiB.
    """

    id: str
    target: str
    strategy: str | None
    kind: ErrorKind
    type: str
    message: str
    location: str
    signature: str
    example: str
    index: int | None
    seed: int
    choices: bytes
    traceback: str
    count: int
    first_seen: float
    last_seen: float
    python: str
    hypothesis: str
    replay: str
    output: str = ""
    example_timeout_s: float = 1.0
    limits: dict[str, int] = field(default_factory=dict)
    network: bool = True
    hosts: tuple[str, ...] = ()
    replays: int = 0
    replay_failures: int = 0
    inputs: str | None = None
    command: tuple[str, ...] = ()
    crash_exit_codes: tuple[int, ...] = ()
    input: bytes | None = None

    @property
    def flaky(self) -> bool:
        """Whether the example passed in some of its replays."""
        return self.replay_failures < self.replays


@dataclass(frozen=True, slots=True)
class FuzzResult:
    """What a `FuzzOperation` did, all its shards together; also what one shard did, before they are merged.

    Attributes:
        examples: examples that were run.
        distinct_examples: how many of them differed, within each shard.
        invalid_examples: how many the target or its strategy rejected (`assume`, filters).
        duration_s: seconds of running examples, summed over shards.
        executions_per_s: examples per second of running, summed shards as if one after another.
        seed: the seed that addresses the examples.
        findings: one entry for each distinct failure.
        children_replaced: children that died, or were killed because they hung, and were followed by another.
    """

    examples: int
    distinct_examples: int
    invalid_examples: int
    duration_s: float
    executions_per_s: float
    seed: int
    findings: list[Finding] = field(default_factory=list)
    children_replaced: int = 0

    @property
    def invalid_share(self) -> float:
        """The part of all examples that was rejected, 0 to 1."""
        return self.invalid_examples / self.examples if self.examples else 0.0

    @property
    def example_s(self) -> float:
        """Seconds that one example took, in the mean."""
        return self.duration_s / self.examples if self.examples else 0.0


class BatchState(StrEnum):
    """The life of a batch."""

    SUBMITTING = "submitting"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class BatchStatus(BaseModel):
    """One consistent reading of a batch's counters: total = succeeded + failed + cancelled + pending, always."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(description="The batch's key.")
    state: BatchState = Field(description="submitting, running, done or cancelled.")
    total: int = Field(description="Operations accepted so far.")
    succeeded: int = Field(description="Operations with a value.")
    failed: int = Field(description="Operations with an error, cancelled ones not counted.")
    cancelled: int = Field(description="Operations that were cancelled before they ended.")
    pending: int = Field(description="Operations without an outcome yet.")
    done: bool = Field(description="Whether every operation has its outcome and no more can come.")
    sealed: bool = Field(description="Whether the producer has submitted everything.")
    examples_done: int = Field(default=0, description="Examples that fuzz operations have run so far.")
    late_duplicates: int = Field(default=0, description="Outcomes that came from a fenced attempt and were dropped.")
    created_at: float = Field(description="Server time of the first submit, seconds since the epoch.")
    finished_at: float | None = Field(default=None, description="Server time when the last outcome was recorded.")
    deadline_at: float | None = Field(default=None, description="Server time at which what is left is given up.")
    priority: Priority = Field(default=Priority.NORMAL, description="high, normal or low.")

    @property
    def completed(self) -> int:
        """Operations that have their outcome."""
        return self.succeeded + self.failed + self.cancelled


class BatchAggregate(BaseModel):
    """All outcomes of a batch by operation key; each key is in exactly one of `results` and `errors`."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    key: str = Field(description="The batch's key.")
    status: BatchStatus = Field(description="The counters when the aggregate was read.")
    results: dict[str, Any] = Field(description="Value by key.")
    errors: dict[str, OperationError] = Field(description="Error by key.")


def clipped(text: str, limit: int) -> str:
    """Return `text`, its middle left out if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"
