"""Heights: how deep values are at least, so that a schema inside itself comes to an end where it can."""

from __future__ import annotations

import math

from fuzzfarm_worker.fuzzing.json_schema.nodes import Node
from fuzzfarm_worker.fuzzing.json_schema.scalars import SCALARS


class Heights:
    """How deep the values of nodes are at least: 0 for what holds nothing; infinite where there is no value.

    The least solution of equations that may go in circles, approached from above (Knuth, "A generalization of
    Dijkstra's algorithm", 1977, solves the same ones).
    """

    def __init__(self) -> None:
        self._known: dict[str, float] = {}
        self._visited: set[str] = set()

    def of(self, node: Node) -> float:
        """Return the height of a node."""
        if node.key not in self._known:
            before: dict[str, float] = {}
            while before != self._known or node.key not in self._known:
                before = dict(self._known)
                self._visited.clear()
                self._visit(node)
        return self._known[node.key]

    def _visit(self, node: Node) -> float:
        if node.key in self._visited:
            return self._known.get(node.key, math.inf)
        self._visited.add(node.key)
        height = self._height(node)
        self._known[node.key] = height
        return height

    def _height(self, node: Node) -> float:
        if node.values is not None:
            return 0 if node.values else math.inf
        if node.branches is not None:
            return min(map(self._visit, node.branches))
        return min((self._of_type(node, name) for name in node.types), default=math.inf)

    def of_type(self, node: Node, name: str) -> float:
        """Return the height of the values of one type."""
        self.of(node)
        return self._of_type(node, name)

    def _of_type(self, node: Node, name: str) -> float:
        if name == "array":
            return self._of_array(node)
        if name == "object":
            return self._of_object(node)
        return math.inf if SCALARS[name](node).is_empty else 0

    def _of_array(self, node: Node) -> float:
        least, most = node.least("minItems"), node.most("maxItems")
        needed = [self._visit(item) for item in node.prefix[:least]]
        others = self._visit(node.rest)
        if least > len(node.prefix):
            needed.append(others)
        return math.inf if most is not None and most < least else 1 + max(needed, default=-1)

    def _of_object(self, node: Node) -> float:
        heights = {name: self._visit(node.property(name)) for name in node.named}
        most = node.most("maxProperties")
        if most is not None and most < max(node.least("minProperties"), len(node.required)):
            return math.inf
        return 1 + max((heights[name] for name in node.required), default=-1)
