"""Values as JSON. What JSON lacks is written so that nothing is hidden, and every line is valid JSON."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel

from fuzzfarm_shared.outcomes import Finding


def to_json(value: Any) -> str:
    """Return one line of JSON, in ASCII, so that lone surrogates and odd line ends cannot break it."""
    return json.dumps(plain(value), allow_nan=False)


def plain(value: Any) -> Any:
    """Return `value` made of what JSON has.

    Bytes become `{"base64": ...}`, sets sorted lists, tuples lists, dates ISO 8601, NaN and infinities text,
    dictionary keys that are no text their `repr`, anything else its text.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    rule = next((rule for kind, rule in _RULES if isinstance(value, kind)), None)
    if rule is not None:
        return rule(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return str(value)


def _mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {name if isinstance(name, str) else repr(name): plain(item) for name, item in value.items()}


def finding_record(finding: Finding) -> dict[str, Any]:
    """Return a finding as the replay process reads it: its choices and its input are plain base64."""
    fields = {field.name: plain(getattr(finding, field.name)) for field in dataclasses.fields(finding)}
    given = None if finding.input is None else base64.b64encode(finding.input).decode()
    return {**fields, "choices": base64.b64encode(finding.choices).decode(), "input": given}


_RULES: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: plain(value.value)),
    (int, int),
    (float, lambda value: value if math.isfinite(value) else repr(value)),
    ((bytes, bytearray), lambda value: {"base64": base64.b64encode(value).decode()}),
    (BaseModel, lambda value: {name: plain(getattr(value, name)) for name in type(value).model_fields}),
    (Finding, finding_record),
    (Mapping, _mapping),
    ((set, frozenset), lambda value: sorted(map(plain, value), key=to_json)),
    ((list, tuple), lambda value: [plain(item) for item in value]),
    ((dt.date, dt.time), lambda value: value.isoformat()),
)
"""What each type becomes; the first that fits counts."""
