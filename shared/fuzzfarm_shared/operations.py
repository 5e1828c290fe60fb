"""Operations: one unit of work with a key. Frozen, checked when they are made, and light to send.

Limits are declared on the fields. A group (`CallOperation.many`) stands for many calls of one target without one
model for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypedDict, Unpack

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from fuzzfarm_shared.errors import InvalidOperationError
from fuzzfarm_shared.inputs import MAX_INPUTS_CHARS, InputsKind, inputs_word
from fuzzfarm_shared.limits import (
    MAX_CPU_S,
    MAX_LIMIT,
    MIN_CPU_S,
    MIN_OPEN_FILES,
    MIN_PROCESSES,
    MIN_PROGRAM_MEMORY_BYTES,
)
from fuzzfarm_shared.targets import COMMAND, command_target, target_name

MAX_KEY_CHARS = 512
"""Longest key of an operation: it is stored once per outcome."""

MAX_TIMEOUT_S = 30 * 86_400.0
"""Longest limit of one try: a month, so that a typing error is caught."""

DEFAULT_TIMEOUT_S = 30.0
DEFAULT_RETRY_DELAY_S = 1.0
MAX_RETRIES = 1_000
MAX_RETRY_DELAY_S = 86_400.0
DEFAULT_OUTPUT_BYTES = 10_000_000

MIN_MEMORY_BYTES = 64_000_000
"""Least address space of a child that is an interpreter."""

MIN_FUZZING_FILE_BYTES = 1 << 20
"""Least limit of a fuzzing child's files: what it prints is one, and so is what a fork of it tells of a failure."""

OperationKey = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_CHARS)]
# A plain validator that remembers names takes half the time of a pattern behind a Python function, per operation.
TargetName = Annotated[str, PlainValidator(target_name)]
Command = Annotated[list[Annotated[str, StringConstraints(max_length=131_072)]], Field(min_length=1, max_length=10_000)]
LEFT_TO_WORKER = ("timeout_s", "retries", "retry_delay_s")
"""Fields that the settings of the worker decide where an operation was made without them, but a fuzz operation."""

NEEDS_A_PROCESS = ("command", "stateless", "limits", "network")
"""Fields of a fuzz operation that cannot hold for a target inside the worker."""

InputsWord = Annotated[str, StringConstraints(max_length=MAX_INPUTS_CHARS), AfterValidator(inputs_word)]
TimeoutSeconds = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S, allow_inf_nan=False)]


class Operation(BaseModel):
    """What every operation has; use one of its subclasses.

    Raises:
        InvalidOperationError: for an unknown field or a wrong value, naming it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    """Names the handler that runs it."""

    per_operation: ClassVar[tuple[str, ...]] = ()
    """Fields that differ from one operation to the next; all others are shared by the operations of a chunk."""

    key: OperationKey | None = Field(default=None, description="Unique in its batch; None: its position.")
    timeout_s: TimeoutSeconds | None = Field(
        default=DEFAULT_TIMEOUT_S, description="Seconds for one try; None: no limit."
    )
    retries: int = Field(default=0, ge=0, le=MAX_RETRIES, description="Further tries after a failure.")
    retry_delay_s: float = Field(
        default=DEFAULT_RETRY_DELAY_S,
        ge=0,
        le=MAX_RETRY_DELAY_S,
        description="Seconds before the first retry; doubles.",
    )

    if not TYPE_CHECKING:  # type checkers see the signature that the fields make

        def __init__(self, /, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as exc:
                raise _first_error(type(self).__name__, exc) from exc


class CallOptions(TypedDict, total=False):
    """The fields of a call that the calls of a group share, but its target."""

    timeout_s: float | None
    retries: int
    retry_delay_s: float
    isolation: Literal["worker", "child"]
    memory_bytes: int | None


class CallOperation(Operation):
    """Call a Python function by name on a worker.

    `target` is "module:qualname" or a callable that can be imported by name; the module must be importable on the
    workers. A lambda, a closure or a function of `__main__` is refused with a `TargetError`.
    """

    kind: ClassVar[str] = "call"
    per_operation: ClassVar[tuple[str, ...]] = ("args", "kwargs")

    target: TargetName = Field(description='"module:function" or "module:Class.method".')
    args: list[Any] = Field(default_factory=list, description="Positional arguments.")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments.")
    isolation: Literal["worker", "child"] = Field(default="worker", description="Where it runs.")
    memory_bytes: int | None = Field(default=None, ge=MIN_MEMORY_BYTES, description="Address space of the child.")

    @model_validator(mode="after")
    def _refuse_limits_of_the_worker(self) -> Self:
        if self.memory_bytes is not None and self.isolation != "child":
            raise ValueError("memory_bytes is a limit of a child: add isolation='child', or leave it out")
        return self

    @classmethod
    def many(
        cls,
        target: str | Callable[..., Any],
        items: Iterable[Any],
        *,
        star: bool = False,
        **options: Unpack[CallOptions],
    ) -> CallGroup:
        """Return a group that calls `target` once for each item, keyed by position.

        Args:
            target: as for a single operation.
            items: any iterable, read lazily; each item is the one argument of a call.
            star: take each item as the sequence of all positional arguments of its call.
            options: fields of the operation that hold for each call.
        """
        return CallGroup(cls(target=target_name(target), **options), items, star)


@dataclass(frozen=True, slots=True)
class CallGroup:
    """Many calls of one target; submit it alone, or among other operations.

    Attributes:
        template: the call without arguments; its options hold for the whole group.
        items: the arguments, read once and lazily.
        star: whether an item is the sequence of all positional arguments.
    """

    template: CallOperation
    items: Iterable[Any]
    star: bool = False

    def arguments(self) -> Iterator[list[Any]]:
        """Yield the positional arguments of each call."""
        return map(list, self.items) if self.star else ([item] for item in self.items)


class ProcessLimits(BaseModel):
    """Limits of a child, set before its program runs; None leaves a limit as the worker has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_bytes: int | None = Field(
        default=None, ge=MIN_PROGRAM_MEMORY_BYTES, le=MAX_LIMIT, description="Address space, 32 MiB or more."
    )
    cpu_s: int | None = Field(
        default=None, ge=MIN_CPU_S, le=MAX_CPU_S, description="CPU seconds of a program, or of one example."
    )
    file_size_bytes: int | None = Field(default=None, ge=0, le=MAX_LIMIT, description="Largest file it may write.")
    open_files: int | None = Field(default=None, ge=MIN_OPEN_FILES, le=MAX_LIMIT, description="Descriptors.")
    processes: int | None = Field(
        default=None,
        ge=MIN_PROCESSES,
        le=MAX_LIMIT,
        description="Processes of the worker's user, all together; the kernel does not hold root to it.",
    )


class SubprocessJob(Operation):
    """Run a program, without a shell, and keep its exit code and output."""

    kind: ClassVar[str] = "subprocess"
    per_operation: ClassVar[tuple[str, ...]] = ("command", "stdin")

    command: Command = Field(description="The program and its arguments.")
    cwd: str | None = Field(default=None, description="Working directory on the worker; None: the worker's own.")
    env: dict[str, str] = Field(default_factory=dict, description="Added to the worker's clean environment.")
    stdin: bytes | None = Field(default=None, description="Its input; None: nothing.")
    check: bool = Field(default=False, description="Count a non-zero exit code as an error.")
    binary: bool = Field(default=False, description="Keep output as bytes instead of text.")
    max_output_bytes: int = Field(
        default=DEFAULT_OUTPUT_BYTES, ge=0, le=1_000_000_000, description="Kept of each stream."
    )
    limits: ProcessLimits = Field(default_factory=ProcessLimits, description="Resource limits.")

    @model_validator(mode="after")
    def _refuse_null_characters(self) -> Self:
        for where, parts in (
            ("a command", self.command),
            ("a working directory", (self.cwd or "",)),
            ("an environment", (*self.env, *self.env.values())),
        ):
            if any("\0" in part for part in parts):
                raise ValueError(f"{where} cannot contain a null character: remove it")
        return self


def fuzz_target_name(target: Any) -> str:
    """Return the name of a target, which may be a command; raises TargetError as `target_name`."""
    return target if type(target) is str and target.startswith(COMMAND) else target_name(target)


class FuzzOperation(Operation):
    """Run a target on many generated examples, addressed by seed and index, and keep what fails.

    `target` is an unmodified Hypothesis test or a callable with type hints. For a callable without, `strategy` names a
    Hypothesis strategy, or `inputs` says in a word what is generated. Instead of a target, `command` runs a program on
    each example: in a file whose path replaces `@@` in its arguments, or else as its standard input. Give `examples` or
    `time_s`, not both; neither means 1,000 examples.
    """

    kind: ClassVar[str] = "fuzz"

    target: Annotated[str, PlainValidator(fuzz_target_name)] = Field(
        default="", description='"module:function" or "module:Class.method"; made from `command` where that is given.'
    )
    command: Command | None = Field(
        default=None, description="A program and its arguments instead of a target; @@ is the file of an example."
    )
    crash_exit_codes: list[Annotated[int, Field(ge=1, le=255)]] = Field(
        default_factory=list, max_length=255, description="Exit codes of the command that are findings."
    )
    strategy: TargetName | None = Field(default=None, description='"module:name" of a strategy.')
    inputs: InputsWord | None = Field(
        default=None, description='What is generated: "bytes", "text", "regex:...", "seeds:..." or "schema:...".'
    )
    examples: int | None = Field(default=None, ge=1, le=10**12, description="How many examples to run.")
    time_s: TimeoutSeconds | None = Field(default=None, description="How long to run, instead of `examples`.")
    time_from: Literal["operation", "batch"] = Field(
        default="operation",
        description="What `time_s` counts from: the first example of this operation, or of its whole batch.",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Addresses the examples together with their index.")
    example_timeout_s: TimeoutSeconds = Field(default=1.0, description="Seconds for one example.")
    limits: ProcessLimits = Field(default_factory=ProcessLimits, description="Resource limits of the child.")
    network: bool = Field(
        default=True, description="False: the target has no network but a loopback of its own (Linux)."
    )
    isolation: Literal["child", "none"] = Field(
        default="child", description='Where examples run: "child", or "none": in the worker, for code that you trust.'
    )
    stateless: bool = Field(default=False, description="Run each example in a fork of its own.")
    timeout_s: TimeoutSeconds | None = Field(default=None, description="Seconds for one shard; None: no limit.")

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.command is None:
            if not self.target or self.target.startswith(COMMAND):
                raise ValueError("there is nothing to fuzz: give a target, or a command")
            if self.crash_exit_codes:
                raise ValueError("crash_exit_codes are those of a command: give one, or leave them out")
        elif self.target != command_target(self.command):
            raise ValueError("give target or command, not both")
        elif any("\0" in word for word in self.command):
            raise ValueError("a command cannot contain a null character: remove it")
        if self.strategy is not None and self.inputs is not None:
            raise ValueError("give strategy or inputs, not both")
        if self.retries:
            raise ValueError("a fuzz operation has no retries, because a failing example is a finding: remove them")
        return self

    @model_validator(mode="after")
    def _refuse_limits_below_an_interpreter(self) -> Self:
        for name, least, why in (
            ("memory_bytes", MIN_MEMORY_BYTES, "the child is an interpreter"),
            ("file_size_bytes", MIN_FUZZING_FILE_BYTES, "what the child prints is a file, too"),
        ):
            given = getattr(self.limits, name)
            if given is not None and given < least:
                raise ValueError(f"limits.{name} must be at least {least:,}, because {why}: raise it, or leave it out")
        return self

    @model_validator(mode="after")
    def _refuse_what_needs_a_process(self) -> Self:
        fields = type(self).model_fields
        for name in NEEDS_A_PROCESS if self.isolation == "none" else ():
            if getattr(self, name) != fields[name].get_default(call_default_factory=True):
                raise ValueError(f"{name} needs a process apart from the worker: leave it out, or isolation='none'")
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = _with_command(data)
        if data.get("examples") is not None and data.get("time_s") is not None:
            raise ValueError("give examples or time_s, not both")
        if data.get("examples") is None and data.get("time_s") is None:
            return {**data, "examples": DEFAULT_EXAMPLES}
        return data


def _with_command(data: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with those that follow from a command: the name of the target, and bytes as inputs."""
    command = data.get("command")
    if not isinstance(command, list | tuple) or not all(isinstance(word, str) for word in command):
        return data
    told = data.get("inputs") is not None or data.get("strategy") is not None
    return {"target": command_target(command), **({} if told else {"inputs": InputsKind.BYTES.value}), **data}


def _first_error(name: str, exc: ValidationError) -> InvalidOperationError:
    """Return what is wrong first, in one sentence."""
    first = exc.errors(include_url=False, include_input=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidOperationError):
        return cause
    return InvalidOperationError(_sentence(name, first))


def _sentence(name: str, first: ErrorDetails) -> str:
    place = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{name} has no field {place!r}: remove it, or check its spelling"
    if first["type"] == "missing":
        return f"{name} needs {place!r}: add it"
    return f"{name}: {place}: {message}" if place else f"{name}: {message}"


DEFAULT_EXAMPLES = 1_000
"""A run that ends within seconds for most targets."""

AnyOperation = CallOperation | SubprocessJob | FuzzOperation
KINDS: dict[str, type[CallOperation | SubprocessJob | FuzzOperation]] = {
    operation.kind: operation for operation in (CallOperation, SubprocessJob, FuzzOperation)
}
"""The operation class of each kind, by the word that names it in payloads and files."""
