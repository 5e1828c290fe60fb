"""What a child may use at most, as the operating system enforces it."""

from __future__ import annotations

from dataclasses import dataclass, fields

#: Address space below this cannot hold a dynamically linked program next to the spawner's own stack mapping.
MIN_MEMORY_BYTES = 32 * 1024 * 1024


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
            if value is not None and value < 0:
                raise ValueError(f"limit {field.name} must not be negative, got {value}")
        if self.memory_bytes is not None and self.memory_bytes < MIN_MEMORY_BYTES:
            raise ValueError(f"memory_bytes must be at least {MIN_MEMORY_BYTES}, got {self.memory_bytes}")

    def as_tuple(self) -> tuple[int | None, ...]:
        """The six values in wire order."""
        return (self.memory_bytes, self.cpu_s, self.file_size_bytes, self.open_files, self.processes, self.core)


NO_LIMITS = Limits()
