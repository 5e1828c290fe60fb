"""Numbers of tools are those of the process: each test starts at none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fuzzfarm_worker.tools import reset_tool_metrics


@pytest.fixture(autouse=True)
def no_numbers() -> Iterator[None]:
    reset_tool_metrics()
    yield
    reset_tool_metrics()
