"""Log lines and numbers of tools."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzfarm_worker import async_log_execution, async_track_metrics
from fuzzfarm_worker.tools.metrics import REMEMBERED_CALLS, _Counts, tool_metrics


@async_log_execution(tool_name="thing")
@async_track_metrics("thing")
async def thing(error: type[BaseException] | None = None) -> str:
    """Says so."""
    if error is not None:
        raise error
    return "done"


def outcomes_of(caplog: pytest.LogCaptureFixture, error: type[BaseException] | None) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO), contextlib.suppress(ValueError, asyncio.CancelledError):
        asyncio.run(thing(error))
    (record,) = caplog.records
    return record.getMessage()


def test_each_call_is_one_line_and_counted_by_how_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    assert "a tool has run tool=thing seconds=0.0 outcome=ok" in outcomes_of(caplog, None)
    assert "outcome=error error=ValueError" in outcomes_of(caplog, ValueError)
    assert "outcome=cancelled" in outcomes_of(caplog, asyncio.CancelledError)
    numbers = tool_metrics()["thing"]
    assert (numbers.calls, numbers.errors, numbers.cancelled) == (3, 1, 1)


def test_a_decorated_function_stays_itself() -> None:
    assert (thing.__name__, thing.__doc__) == ("thing", "Says so.")
    assert asyncio.run(thing()) == "done"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_percentiles_are_values_that_were_measured(seconds: list[float]) -> None:
    counts = _Counts()
    for value in seconds:
        counts.add(value, None)
    numbers = counts.metrics()
    ordered = sorted(seconds)
    assert numbers.p50_s in ordered
    assert sum(value <= numbers.p50_s for value in ordered) * 2 >= len(ordered)
    assert sum(value <= numbers.p95_s for value in ordered) >= 0.95 * len(ordered)
    assert numbers.max_s == ordered[-1]
    assert numbers.total_s == pytest.approx(sum(seconds))


def test_memory_is_bounded() -> None:
    counts = _Counts()
    for number in range(3 * REMEMBERED_CALLS):
        counts.add(float(number), None)
    assert len(counts.last) == REMEMBERED_CALLS
    assert counts.metrics().calls == 3 * REMEMBERED_CALLS
