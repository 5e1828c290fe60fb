"""The compiler: strategies of the values that nodes allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fuzzfarm_worker.fuzzing.json_schema.documents import Document, Schema, SchemaError
from fuzzfarm_worker.fuzzing.json_schema.heights import Heights
from fuzzfarm_worker.fuzzing.json_schema.nodes import Node
from fuzzfarm_worker.fuzzing.json_schema.scalars import SCALARS
from fuzzfarm_worker.fuzzing.json_schema.validity import allows, identity

MAX_DEPTH = 6
"""Values in values down to here have what they may have; below, only what they must: a schema inside itself ends."""

MAX_EXTRA = 5
"""Items that hold others, and properties, beyond those that there must be, or that are named."""

MAX_EXTRA_INSIDE = 2
"""The same in values in values: one on average, so that a tree does not grow beyond measure."""


def schema_strategy(schema: Schema) -> SearchStrategy[Any]:
    """Return a strategy of the values that a JSON Schema allows.

    Raises:
        SchemaError: for a schema that allows no value, or has something that is not supported.
    """
    compiler = _Compiler()
    node = Node.of(Document(schema), [schema])
    if compiler.heights.of(node) == math.inf:
        raise SchemaError("it allows no value: repair what contradicts itself")
    return compiler.strategy(node)


class _Compiler:
    """Makes one strategy for each node, however often, and wherever, it is met."""

    def __init__(self) -> None:
        self.heights = Heights()
        self._strategies: dict[str, SearchStrategy[Any]] = {}
        self._depth = 0

    def strategy(self, node: Node) -> SearchStrategy[Any]:
        """Return the strategy of a node, which is made when it is first drawn from: it may hold itself."""
        if node.key not in self._strategies:
            self._strategies[node.key] = st.deferred(lambda: self._checked(node))
        return self._strategies[node.key]

    def _checked(self, node: Node) -> SearchStrategy[Any]:
        if node.values is not None:
            return st.sampled_from(node.values) if node.values else st.nothing()
        made = self._unchecked(node)
        if not node.checks:
            return made
        return made.filter(lambda value: all(allows(node.document, check, value) for check in node.checks))

    def _unchecked(self, node: Node) -> SearchStrategy[Any]:
        if node.branches is not None:
            return self._one_of([(self.heights.of(branch), self.strategy(branch)) for branch in node.branches])
        return self._one_of([(self.heights.of_type(node, name), self._of_type(node, name)) for name in node.types])

    def _of_type(self, node: Node, name: str) -> SearchStrategy[Any]:
        make = {**SCALARS, "array": self._array, "object": self._object}
        return make[name](node)

    def _one_of(self, options: list[tuple[float, SearchStrategy[Any]]]) -> SearchStrategy[Any]:
        """Return a strategy that takes any option, and deep down one that is least deep itself."""
        possible = sorted((option for option in options if option[0] < math.inf), key=lambda option: option[0])
        if not possible:
            return st.nothing()
        every = st.one_of([strategy for _height, strategy in possible])
        flat = st.one_of([strategy for height, strategy in possible if height == possible[0][0]])
        return every if len(possible) == 1 else self._depending_on_depth(every, flat)

    def _depending_on_depth(self, every: SearchStrategy[Any], flat: SearchStrategy[Any]) -> SearchStrategy[Any]:
        @st.composite
        def one(draw: st.DrawFn) -> Any:
            return draw(every if self._depth < MAX_DEPTH else flat)

        return one()

    @contextmanager
    def _deeper(self) -> Iterator[int]:
        """Go into a value; says how much it may have beyond what it must, 0 deep down."""
        self._depth += 1
        try:
            yield 0 if self._depth > MAX_DEPTH else MAX_EXTRA if self._depth == 1 else MAX_EXTRA_INSIDE
        finally:
            self._depth -= 1

    def _array(self, node: Node) -> SearchStrategy[list[Any]]:
        least, most = node.least("minItems"), self._most_items(node)
        first = [self.strategy(item) for item in node.prefix[:most]]
        rest = self.strategy(node.rest)
        unique_by = identity if any(node.every("uniqueItems")) else None
        flat = not first and node.rest.is_flat

        @st.composite
        def array(draw: st.DrawFn) -> list[Any]:
            with self._deeper() as extra:
                if flat:
                    return draw(st.lists(rest, min_size=least, max_size=most, unique_by=unique_by))
                # What says nothing of items beyond those in front means none of them.
                wanted = len(first) + (extra if node.says_of_rest or not first else 0) if extra else 0
                upper = max(least, wanted if most is None else min(most, wanted))
                if not first:
                    return draw(st.lists(rest, min_size=least, max_size=upper, unique_by=unique_by))
                return _items(draw, draw(st.integers(least, upper)), first, rest, unique_by)

        return array()

    def _most_items(self, node: Node) -> int | None:
        """Return how many items there can be: an item that cannot be is the end."""
        ends = [place for place, item in enumerate(node.prefix) if self.heights.of(item) == math.inf]
        if self.heights.of(node.rest) == math.inf:
            ends.append(len(node.prefix))
        return min([*ends, *node.every("maxItems")], default=None)

    def _object(self, node: Node) -> SearchStrategy[dict[str, Any]]:
        names = {name: node.property(name) for name in node.named}
        possible = {name: self.strategy(each) for name, each in names.items() if self.heights.of(each) < math.inf}
        optional = [name for name in possible if name not in node.required]
        others = self._other_names(node)
        least, most = node.least("minProperties"), node.most("maxProperties")

        @st.composite
        def properties(draw: st.DrawFn) -> dict[str, Any]:
            with self._deeper() as extra:
                chosen = _chosen(draw, node.required, optional, least, most, wide=extra > 0)
                value = {name: draw(possible[name]) for name in possible if name in chosen}
                if others is not None:
                    self._add_others(draw, node, value, others, extra)
                return value

        return properties().filter(lambda value: len(value) >= least)

    def _other_names(self, node: Node) -> SearchStrategy[str] | None:
        """Return a strategy of names that no schema lists, but some pattern or `additionalProperties` allows."""
        patterns = [pattern for part in node.every("patternProperties") for pattern in part]
        free = all(rule is not False for rule in node.every("additionalProperties"))
        # What lists properties and says nothing of others means none of them, unless there must be more.
        wanted = node.says_of_others or node.least("minProperties") > len(node.named)
        options = [st.from_regex(pattern) for pattern in patterns]
        options += [st.text()] if free and (wanted or not node.named) else []
        return st.one_of(options) if options else None

    def _add_others(
        self, draw: st.DrawFn, node: Node, value: dict[str, Any], names: SearchStrategy[str], extra: int
    ) -> None:
        least = max(0, node.least("minProperties") - len(value))
        most = node.most("maxProperties")
        upper = max(least, extra if most is None else min(extra, most - len(value)))
        new = names.filter(lambda name: name not in node.named)
        for name in draw(st.lists(new, min_size=least, max_size=upper, unique=True)):
            each = node.property(name)
            if self.heights.of(each) < math.inf:
                value[name] = draw(self.strategy(each))


def _chosen(
    draw: st.DrawFn, required: list[str], optional: list[str], least: int, most: int | None, *, wide: bool
) -> set[str]:
    """Draw the listed properties that an object has, within the limits where the listed ones reach."""
    chosen = set(required)
    missing = least - len(chosen)
    room = len(optional) if most is None else most - len(chosen)
    if room <= 0 or not (wide or missing > 0):
        return chosen
    if missing <= 0 and room >= len(optional):
        return chosen | {name for name in optional if draw(st.booleans())}
    least_more, most_more = min(max(0, missing), len(optional)), min(room, len(optional))
    more = st.lists(st.sampled_from(optional), min_size=least_more, max_size=most_more, unique=True)
    return chosen | set(draw(more)) if optional else chosen


def _items(
    draw: st.DrawFn,
    count: int,
    first: list[SearchStrategy[Any]],
    rest: SearchStrategy[Any],
    unique_by: Callable[[Any], Any] | None,
) -> list[Any]:
    """Draw items one by one, because those in front have schemas of their own."""
    items: list[Any] = []
    seen: set[Any] = set()
    for place in range(count):
        strategy = first[place] if place < len(first) else rest
        item = draw(strategy if unique_by is None else strategy.filter(lambda one: unique_by(one) not in seen))
        items.append(item)
        if unique_by is not None:
            seen.add(unique_by(item))
    return items
