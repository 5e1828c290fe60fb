from __future__ import annotations

import logging

import pytest

from fuzzfarm_shared.log import get_logger


def test_a_line_reads_event_and_keys(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        get_logger("fuzzfarm.test").info("chunk done", chunk="b/1", units=3)
    assert [record.getMessage() for record in caplog.records] == ["chunk done chunk=b/1 units=3"]
    assert caplog.records[0].name == "fuzzfarm.test"


def test_a_line_below_the_level_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        get_logger("fuzzfarm.test").info("quiet")
    assert not caplog.records


def test_an_exception_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        get_logger("fuzzfarm.test").exception("failed")
    assert "ValueError: broken" in caplog.text
