"""Findings for tests."""

from __future__ import annotations

from typing import Any

from fuzzfarm_shared.outcomes import ErrorKind, Finding


def finding(**fields: Any) -> Finding:
    """Return a finding with these fields, and some value in each other."""
    values: dict[str, Any] = {
        "id": "f1",
        "target": "m:f",
        "strategy": None,
        "kind": ErrorKind.EXCEPTION,
        "type": "ValueError",
        "message": "no",
        "location": "m.py:3 in f",
        "signature": "s",
        "example": "f(100)",
        "index": 9,
        "seed": 4,
        "choices": b"1234",
        "traceback": "Traceback",
        "count": 2,
        "first_seen": 10.0,
        "last_seen": 20.0,
        "python": "3.11",
        "hypothesis": "6",
        "replay": "fuzzfarm replay f1",
    }
    return Finding(**{**values, **fields})
