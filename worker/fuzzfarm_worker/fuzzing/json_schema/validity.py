"""Validity: whether a schema allows a value; for what cannot be built in, and is filtered instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from fuzzfarm_worker.fuzzing.json_schema.documents import Document, Part, Schema

Check = Callable[[Document, Any, Any, Part], bool]
"""Takes the document, the value of the keyword, the value to be checked, and the schema around the keyword."""


def allows(document: Document, schema: Schema, value: Any) -> bool:
    """Return whether `schema` allows `value`; `format` is an annotation here."""
    if isinstance(schema, bool):
        return schema
    return all(
        check(document, schema[keyword], value, schema) for keyword, check in _CHECKS.items() if keyword in schema
    )


def identity(value: Any) -> Any:
    """Return what is equal for equal values of JSON, where 1 is 1.0 and true is no number, and can be hashed."""
    if isinstance(value, dict):
        return "object", frozenset((name, identity(item)) for name, item in value.items())
    if isinstance(value, list):
        return "array", tuple(map(identity, value))
    return type(value) is bool, value


def is_of(value: Any, name: str) -> bool:
    """Return whether a value is of a type of JSON Schema, for which 1.0 is an integer too."""
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _PYTHON_TYPES[name])


_PYTHON_TYPES: dict[str, Any] = {
    "null": type(None),
    "boolean": bool,
    "number": (int, float),
    "string": str,
    "array": list,
    "object": dict,
}


def is_multiple(value: float, of: float) -> bool:
    """Return whether a number is a multiple, as it is written in decimal and as floating point division sees it."""
    if isinstance(value, int) and isinstance(of, int):
        return value % of == 0
    quotient = value / of
    return exact(value) % exact(of) == 0 and quotient == round(quotient)


def exact(number: float) -> Fraction:
    """Return a number as it is written, without the error of its floating point form."""
    return Fraction(Decimal(repr(number)))


def rules_for(part: Part, name: str) -> list[Schema]:
    """Return the schemas that a part of a schema has for the property `name`."""
    rules: list[Schema] = [part["properties"][name]] if name in part.get("properties", ()) else []
    rules += [rule for pattern, rule in part.get("patternProperties", {}).items() if re.search(pattern, name)]
    return rules or [part.get("additionalProperties", True)]


def prefix_and_rest(part: Part) -> tuple[list[Schema], Schema]:
    """Return the schemas of the first items of an array, and that of all others, in the words of either draft."""
    items = part.get("items", True)
    if isinstance(items, list):
        return items, part.get("additionalItems", True)
    return part.get("prefixItems", []), items


def _type(_document: Document, names: Any, value: Any, schema: Part) -> bool:
    if value is None and schema.get("nullable"):
        return True
    return any(is_of(value, name) for name in ([names] if isinstance(names, str) else names))


def _number(allowed: Callable[[Any, Any], bool]) -> Check:
    return lambda _document, limit, value, _schema: not is_of(value, "number") or allowed(value, limit)


def _size(kind: type[str | list[Any] | dict[str, Any]], allowed: Callable[[int, int], bool]) -> Check:
    return lambda _document, limit, value, _schema: not isinstance(value, kind) or allowed(len(value), limit)


def _items(document: Document, _keyword: Any, value: Any, schema: Part) -> bool:
    if not isinstance(value, list):
        return True
    prefix, rest = prefix_and_rest(schema)
    rules = [*prefix, *[rest] * (len(value) - len(prefix))]
    return all(allows(document, rule, item) for rule, item in zip(rules, value, strict=False))


def _properties(document: Document, _keyword: Any, value: Any, schema: Part) -> bool:
    if not isinstance(value, dict):
        return True
    return all(allows(document, rule, item) for name, item in value.items() for rule in rules_for(schema, name))


def _one_of(document: Document, schemas: Any, value: Any, _schema: Part) -> bool:
    return sum(allows(document, one, value) for one in schemas) == 1


_CHECKS: dict[str, Check] = {
    "$ref": lambda document, reference, value, _schema: allows(document, document.target(reference), value),
    "type": _type,
    "enum": lambda _document, values, value, _schema: identity(value) in map(identity, values),
    "const": lambda _document, const, value, _schema: identity(value) == identity(const),
    "minimum": _number(lambda value, limit: value >= limit),
    "maximum": _number(lambda value, limit: value <= limit),
    "exclusiveMinimum": _number(lambda value, limit: value > limit),
    "exclusiveMaximum": _number(lambda value, limit: value < limit),
    "multipleOf": _number(is_multiple),
    "minLength": _size(str, lambda length, limit: length >= limit),
    "maxLength": _size(str, lambda length, limit: length <= limit),
    "pattern": lambda _doc, pattern, value, _schema: not isinstance(value, str) or bool(re.search(pattern, value)),
    "minItems": _size(list, lambda length, limit: length >= limit),
    "maxItems": _size(list, lambda length, limit: length <= limit),
    "uniqueItems": lambda _document, unique, value, _schema: (
        not unique or not isinstance(value, list) or len({identity(item) for item in value}) == len(value)
    ),
    "prefixItems": _items,
    "items": _items,
    "minProperties": _size(dict, lambda length, limit: length >= limit),
    "maxProperties": _size(dict, lambda length, limit: length <= limit),
    "required": lambda _document, names, value, _schema: not isinstance(value, dict) or set(names) <= set(value),
    "properties": _properties,
    "patternProperties": _properties,
    "additionalProperties": _properties,
    "allOf": lambda document, schemas, value, _schema: all(allows(document, one, value) for one in schemas),
    "anyOf": lambda document, schemas, value, _schema: any(allows(document, one, value) for one in schemas),
    "oneOf": _one_of,
    "not": lambda document, schema, value, _schema: not allows(document, schema, value),
}
"""Every keyword that restricts values. One that says nothing of a value's type allows it."""
