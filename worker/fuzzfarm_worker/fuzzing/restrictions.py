"""Restrictions: what fuzzing children are held to, of one operation or as a finding tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import ValidationError

from fuzzfarm_shared.operations import FuzzOperation, ProcessLimits
from fuzzfarm_worker.processes import Limits
from fuzzfarm_worker.sandbox.pool import MAX_FILE_BYTES


@dataclass(frozen=True, slots=True)
class Restrictions:
    """What a fuzzing child is held to.

    Attributes:
        limits: as an operation has them; `cpu_s` is that of one example.
        network: whether it keeps the network of the host.
    """

    limits: ProcessLimits = field(default_factory=ProcessLimits)
    network: bool = True

    @classmethod
    def of(cls, operation: FuzzOperation) -> Self:
        """Return those of an operation."""
        return cls(operation.limits, operation.network)

    @classmethod
    def told_by(cls, finding: Mapping[str, Any]) -> Self:
        """Return those under which a finding was made, from its fields.

        Raises:
            ValueError: when they cannot be right.
        """
        try:
            return cls(ProcessLimits(**(finding.get("limits") or {})), bool(finding.get("network", True)))
        except ValidationError as exc:
            raise ValueError(f"its limits: {exc.errors()[0]['msg']}") from exc

    def told(self) -> dict[str, Any]:
        """Return the fields of a finding that tell them."""
        return {"limits": self.limits.model_dump(exclude_none=True), "network": self.network}

    def from_fork(self) -> Limits:
        """Return the limits of a child from its fork on; those of CPU begin with each example."""
        given = self.limits.model_dump(exclude={"cpu_s"}, exclude_none=True)
        return Limits(**{"file_size_bytes": MAX_FILE_BYTES, "core": 0, **given})
