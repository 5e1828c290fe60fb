import datetime as dt
import json
from decimal import Decimal

import pytest

from fuzzfarm.cli.plain_data import plain, to_json
from fuzzfarm_shared.outcomes import BatchState, ErrorKind, OperationError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (b"\xff\x00", {"base64": "/wA="}),
        ({3, 1, 2}, [1, 2, 3]),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        ({1: "a", (2, 3): "b", "c": "d"}, {"1": "a", "(2, 3)": "b", "c": "d"}),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (BatchState.DONE, "done"),
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02T00:00:00+00:00"),
        (Decimal("1.50"), "1.50"),
        (2**80, 2**80),
    ],
)
def test_a_value_becomes_what_json_has(value, expected):
    assert plain(value) == expected
    assert json.loads(to_json(value)) == expected


def test_a_record_becomes_an_object_with_its_fields():
    error = OperationError(ErrorKind.TIMEOUT, "", "too slow", worker="w")
    assert plain({"e": error})["e"]["kind"] == "timeout"


def test_a_line_of_json_survives_lone_surrogates_and_line_separators():
    line = to_json({"text": "\ud800\u2028\n"})
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line) == {"text": "\ud800\u2028\n"}
