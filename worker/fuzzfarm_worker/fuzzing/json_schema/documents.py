"""Documents: a schema as a whole, in which references are looked up and keywords are checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any] | bool
Part = dict[str, Any]

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

UNSUPPORTED = frozenset(
    ("if", "then", "else", "contains", "minContains", "maxContains", "propertyNames", "dependencies", "extends",
     "dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties", "disallow", "divisibleBy",
     "$dynamicRef", "$recursiveRef")
)  # fmt: skip
"""Keywords of some draft that restrict values and are not known here; every other unknown word is an annotation."""


IN_PLACE = frozenset(("allOf", "anyOf", "oneOf", "not"))
"""Keywords whose schemas are about the value itself, and not about something in it."""


class SchemaError(ValueError):
    """A schema that cannot be used; the message says where and why."""


@dataclass(slots=True)
class Document:
    """A whole schema.

    Attributes:
        root: the schema that references are resolved in.

    Raises:
        SchemaError: for a keyword that is not supported, or has a value that it cannot have.
    """

    root: Schema
    _seen: set[str] = field(default_factory=set)
    _following: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check every schema in it, and every one that is referred to."""
        try:
            self._check(self.root, "#")
        except RecursionError as exc:
            raise SchemaError("its schemas are inside each other too deeply") from exc

    def target(self, reference: str) -> Schema:
        """Return the schema that a `$ref` leads to.

        Raises:
            SchemaError: when it leads out of the document, or nowhere.
        """
        if reference != "#" and not reference.startswith("#/"):
            raise SchemaError(f"$ref {reference!r} leads out of this schema: put what it names into $defs")
        found: Any = self.root
        for step in reference.split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(name)] if isinstance(found, list) else found[name]
            except (KeyError, IndexError, ValueError, TypeError) as exc:
                raise SchemaError(f"$ref {reference!r} leads nowhere: there is no {name!r}") from exc
        return _as_schema(found, reference)

    def _check(self, schema: Schema, place: str) -> None:
        if place in self._seen or isinstance(schema, bool):
            return
        self._seen.add(place)
        for keyword, value in schema.items():
            if keyword in UNSUPPORTED:
                raise SchemaError(
                    f"{place} has {keyword!r}, which is not supported: leave it out or write it otherwise"
                )
            if keyword in _VALUES and not _VALUES[keyword](value):
                raise SchemaError(f"{place} has {value!r:.80} as {keyword!r}, which it cannot be")
        for pattern in (*schema.get("patternProperties", ()), *filter(None, (schema.get("pattern"),))):
            _check_pattern(pattern, place)
        for inner_place, inner in _inside(schema, place):
            self._check(_as_schema(inner, inner_place), inner_place)
        if "$ref" in schema:
            self._check(self.target(schema["$ref"]), schema["$ref"])
        self._refuse_loop(schema, place)

    def _refuse_loop(self, schema: Schema, place: str) -> None:
        """Raise for a schema that says of a value that it is as this schema says."""
        if isinstance(schema, bool):
            return
        if place in self._following:
            raise SchemaError(f"{place} refers to itself, with nothing in between: repair its $ref")
        self._following.append(place)
        if "$ref" in schema:
            self._refuse_loop(self.target(schema["$ref"]), schema["$ref"])
        for inner_place, inner in _inside(schema, place):
            if inner_place.removeprefix(f"{place}/").partition("/")[0] in IN_PLACE:
                self._refuse_loop(_as_schema(inner, inner_place), inner_place)
        self._following.pop()


def _as_schema(found: Any, place: str) -> Schema:
    if isinstance(found, dict | bool):
        return found
    raise SchemaError(f"{place} is {type(found).__name__}, not a schema")


def _check_pattern(pattern: str, place: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as exc:
        raise SchemaError(f"{place} has {pattern[:80]!r} as a pattern, which Python does not read: {exc}") from exc


def _inside(schema: Part, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the schemas in a schema, each with its place."""
    for keyword in ("properties", "patternProperties", "$defs", "definitions"):
        for name, inner in schema.get(keyword, {}).items():
            yield f"{place}/{keyword}/{name}", inner
    for keyword in ("allOf", "anyOf", "oneOf", "prefixItems", "items"):
        value = schema.get(keyword)
        if isinstance(value, list):
            for number, inner in enumerate(value):
                yield f"{place}/{keyword}/{number}", inner
    for keyword in ("not", "additionalProperties", "additionalItems", "items"):
        if keyword in schema and not isinstance(schema[keyword], list):
            yield f"{place}/{keyword}", schema[keyword]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _is_types(value: Any) -> bool:
    return value in TYPES if isinstance(value, str) else _is_names(value) and bool(value) and set(value) <= set(TYPES)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _of(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


_VALUES: dict[str, Callable[[Any], bool]] = {
    "type": _is_types,
    "enum": _of(list),
    "nullable": _of(bool),
    "$ref": _of(str),
    "allOf": _is_schemas,
    "anyOf": _is_schemas,
    "oneOf": _is_schemas,
    "minimum": _is_number,
    "maximum": _is_number,
    "exclusiveMinimum": _is_number,
    "exclusiveMaximum": _is_number,
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "minLength": _is_count,
    "maxLength": _is_count,
    "pattern": _of(str),
    "format": _of(str),
    "prefixItems": _of(list),
    "minItems": _is_count,
    "maxItems": _is_count,
    "uniqueItems": _of(bool),
    "properties": _of(dict),
    "patternProperties": _of(dict),
    "$defs": _of(dict),
    "definitions": _of(dict),
    "required": _is_names,
    "minProperties": _is_count,
    "maxProperties": _is_count,
}
"""What the value of a keyword must be. `exclusiveMinimum` of draft 4, which is true or false, is none of it."""
