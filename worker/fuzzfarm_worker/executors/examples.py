"""Single examples of Hypothesis strategies, drawn outside the event loop."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

# Examples drawn at once: Hypothesis spends most of the time of a first example on setting up,
# and starts every run with the smallest ones. `.example()` of Hypothesis itself uses as many.
DRAWN_AT_ONCE = 100


class ExampleSource:
    """Draws examples of strategies, many at once; for one thread at a time.

    It uses Hypothesis' public engine and not `.example()`, which warns outside of an
    interactive session and keeps a buffer that two threads can empty under each other.
    """

    def __init__(self) -> None:
        self._drawn: WeakKeyDictionary[SearchStrategy[Any], list[Any]] = WeakKeyDictionary()

    def example(self, strategy: SearchStrategy[Any]) -> Any:
        """One example; raises what drawing it raises, such as Hypothesis' Unsatisfiable."""
        drawn = self._drawn.get(strategy)
        if not drawn:
            drawn = self._drawn[strategy] = draw(strategy, DRAWN_AT_ONCE)
        return drawn.pop()


def draw(strategy: SearchStrategy[Any], count: int) -> list[Any]:
    """Up to `count` examples in random order, at least one."""
    # Here and not above: it takes 0.3 s, which an executor that draws nothing does not owe.
    from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: PLC0415

    examples: list[Any] = []

    @seed(random.getrandbits(64))
    @settings(
        database=None,
        deadline=None,
        max_examples=count,
        phases=(Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(strategy)
    def collect(example: Any) -> None:
        examples.append(example)

    collect()
    random.shuffle(examples)
    return examples
