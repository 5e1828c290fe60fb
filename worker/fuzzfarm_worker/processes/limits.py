"""What a child may use at most, as the operating system enforces it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fuzzfarm_shared.limits import MAX_CPU_S, MAX_LIMIT, MIN_CPU_S, MIN_OPEN_FILES, MIN_PROGRAM_MEMORY_BYTES

_LEAST = {"memory_bytes": MIN_PROGRAM_MEMORY_BYTES, "cpu_s": MIN_CPU_S, "open_files": MIN_OPEN_FILES}
_MOST = {"cpu_s": MAX_CPU_S}


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of one child and all it starts; None leaves a limit as the worker has it.

    The order of the fields is the order on the wire to the guardian.
    """

    memory_bytes: int | None = None
    """Address space (RLIMIT_AS), per process of the tree."""
    cpu_s: int | None = None
    """CPU seconds (RLIMIT_CPU): SIGXCPU when they are used up, SIGKILL one second later."""
    file_size_bytes: int | None = None
    """Largest file it may write (RLIMIT_FSIZE)."""
    open_files: int | None = None
    """Descriptors (RLIMIT_NOFILE)."""
    processes: int | None = None
    """Processes of this user (RLIMIT_NPROC); the kernel does not hold root to it."""
    core: int | None = None
    """Size of a core dump in bytes (RLIMIT_CORE); 0 writes none."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least, most = _LEAST.get(field.name, 0), _MOST.get(field.name, MAX_LIMIT)
            if value is not None and not least <= value <= most:
                raise ValueError(f"limit {field.name} must be {least:,} to {most:,}, got {value:,}")

    def as_tuple(self) -> tuple[int | None, ...]:
        """The six values in wire order."""
        return (self.memory_bytes, self.cpu_s, self.file_size_bytes, self.open_files, self.processes, self.core)


NO_LIMITS = Limits()
