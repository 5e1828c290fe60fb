"""Nodes: what several schemas say of one value, together, with references and `allOf` resolved."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fuzzfarm_worker.fuzzing.json_schema.documents import TYPES, Document, Part, Schema
from fuzzfarm_worker.fuzzing.json_schema.validity import allows, prefix_and_rest, rules_for

TYPE_OF = {
    keyword: kind
    for kind, keywords in (
        ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
        ("string", ("minLength", "maxLength", "pattern", "format")),
        ("array", ("prefixItems", "items", "minItems", "maxItems", "uniqueItems", "additionalItems")),
        ("object", ("properties", "patternProperties", "additionalProperties", "required", "minProperties",
                    "maxProperties")),
    )
    for keyword in keywords
}  # fmt: skip
"""The one type of which a keyword says anything."""

CHOICES = ("anyOf", "oneOf")
SAYING = frozenset((*TYPE_OF, *CHOICES, "type", "nullable", "enum", "const"))
NOTHING: Part = {"enum": []}


@dataclass(frozen=True)
class Node:
    """One value, and all that is said of it.

    Attributes:
        document: the whole schema.
        parts: schemas that all hold, without references and `allOf`; what they say can be built in.
        checks: schemas that hold too, and that values are filtered by.
    """

    document: Document
    parts: list[Part]
    checks: list[Part]

    @classmethod
    def of(cls, document: Document, schemas: Iterable[Schema], checks: Iterable[Part] = ()) -> Node:
        """Return the node of a value of which all of `schemas` and `checks` hold."""
        parts: dict[str, Part] = {}
        filters = {_text(check): check for check in checks}
        for part in _flat(document, schemas):
            said = {keyword: value for keyword, value in part.items() if keyword in SAYING}
            if said:
                parts[_text(said)] = said
            if part.get("not") in (True, {}):
                parts[_text(NOTHING)] = NOTHING
            elif "not" in part:
                check = {"not": part["not"]}
                filters[_text(check)] = check
        return cls(document, [*parts.values()], [*filters.values()])

    @cached_property
    def key(self) -> str:
        """What is equal for equal nodes."""
        return _text([self.parts, self.checks])

    @cached_property
    def values(self) -> list[Any] | None:
        """The values that are listed and allowed, or None when there is no list."""
        lists = [part["enum"] if "enum" in part else [part["const"]] for part in self.parts if part.keys() & _LISTING]
        if not lists:
            return None
        every = [*self.parts, *self.checks]
        return [value for value in lists[0] if all(allows(self.document, part, value) for part in every)]

    @cached_property
    def branches(self) -> list[Node] | None:
        """One node for each way that the first choice leaves, or None when there is no choice."""
        for part in self.parts:
            for keyword in CHOICES:
                if keyword in part:
                    return self._branches(part, keyword)
        return None

    def _branches(self, part: Part, keyword: str) -> list[Node]:
        others = [other for other in self.parts if other is not part]
        rest = {name: value for name, value in part.items() if name != keyword}
        checks = [*self.checks, {keyword: part[keyword]}] if keyword == "oneOf" else self.checks
        return [Node.of(self.document, [*others, rest, branch], checks) for branch in part[keyword]]

    @cached_property
    def types(self) -> list[str]:
        """The types that it may have: those that are named, or else those of which something is said."""
        named = [_types(part) for part in self.parts if "type" in part]
        if named:
            types = [name for name in TYPES if all(_covers(name, names) for names in named)]
        else:
            types = list(dict.fromkeys(TYPE_OF[keyword] for part in self.parts for keyword in part))
        types = types or ([] if named else [*TYPES])
        return [name for name in types if not (name == "integer" and "number" in types)]

    @cached_property
    def is_flat(self) -> bool:
        """Whether it is known that its values do not hold others that it makes."""
        return self.values is not None or (self.branches is None and not {"array", "object"} & set(self.types))

    def every(self, keyword: str) -> list[Any]:
        """Return what the parts have as a keyword."""
        return [part[keyword] for part in self.parts if keyword in part]

    def least(self, keyword: str) -> int:
        """Return the lower limit of a count."""
        return max(self.every(keyword), default=0)

    def most(self, keyword: str) -> int | None:
        """Return the upper limit of a count, or None."""
        return min(self.every(keyword), default=None)

    def all_of(self, schemas: Iterable[Schema]) -> Node:
        """Return the node of another value of which all of `schemas` hold."""
        return Node.of(self.document, schemas)

    @cached_property
    def prefix(self) -> list[Node]:
        """The nodes of the first items of an array."""
        length = max((len(prefix_and_rest(part)[0]) for part in self.parts), default=0)
        return [self.all_of(_at(part, place) for part in self.parts) for place in range(length)]

    @cached_property
    def rest(self) -> Node:
        """The node of every other item of an array."""
        return self.all_of(prefix_and_rest(part)[1] for part in self.parts)

    @cached_property
    def says_of_rest(self) -> bool:
        """Whether anything is said of the items behind the first ones."""
        return any("additionalItems" in part or isinstance(part.get("items"), dict | bool) for part in self.parts)

    @cached_property
    def says_of_others(self) -> bool:
        """Whether anything is said of properties that are not listed."""
        return any("additionalProperties" in part for part in self.parts)

    @cached_property
    def required(self) -> list[str]:
        """The properties that an object must have."""
        return list(dict.fromkeys(name for names in self.every("required") for name in names))

    @cached_property
    def named(self) -> list[str]:
        """All properties of an object that are spoken of."""
        listed = [name for properties in self.every("properties") for name in properties]
        return list(dict.fromkeys([*self.required, *listed]))

    def property(self, name: str) -> Node:
        """Return the node of the value of a property."""
        return self.all_of(rule for part in self.parts for rule in rules_for(part, name))


_LISTING = {"enum", "const"}


def _flat(document: Document, schemas: Iterable[Schema]) -> Iterator[Part]:
    for schema in schemas:
        if isinstance(schema, bool):
            if not schema:
                yield NOTHING
            continue
        yield schema
        if "$ref" in schema:
            yield from _flat(document, [document.target(schema["$ref"])])
        yield from _flat(document, schema.get("allOf", ()))


def _types(part: Part) -> set[str]:
    names = {part["type"]} if isinstance(part["type"], str) else set(part["type"])
    return names | {"null"} if part.get("nullable") else names


def _covers(name: str, names: set[str]) -> bool:
    return name in names or (name == "integer" and "number" in names)


def _at(part: Part, place: int) -> Schema:
    prefix, rest = prefix_and_rest(part)
    return prefix[place] if place < len(prefix) else rest


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
