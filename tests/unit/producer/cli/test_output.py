import pytest

from fuzzfarm.cli.failures import UsageError
from fuzzfarm.cli.options import size_in_bytes
from fuzzfarm.cli.output import Output, table


def test_a_table_is_aligned_numbers_to_the_right():
    assert table(["KEY", "N"], [["a", "5"], ["bcd", "1,000"]]) == "KEY      N\na        5\nbcd  1,000"


def test_a_cell_cannot_move_the_cursor():
    assert "\x1b" not in table(["K"], [["\x1b[2Jx"]])


def test_with_json_only_records_reach_standard_output(capsys):
    output = Output(as_json=True)
    output.say("for people")
    output.note("for people")
    output.record({"a": 1})
    output.complain("broken")
    captured = capsys.readouterr()
    assert captured.out == '{"a": 1}\n'
    assert captured.err == "broken\n"


def test_for_people_results_and_remarks_go_to_different_streams(capsys):
    output = Output()
    output.say("result [not markup] " + "x" * 300)
    output.note("remark")
    output.record({"a": 1})
    captured = capsys.readouterr()
    assert captured.out == "result [not markup] " + "x" * 300 + "\n"
    assert captured.err == "remark\n"


@pytest.mark.parametrize(
    ("text", "size"), [("1000", 1000), ("64K", 65536), ("512M", 512 << 20), ("2GiB", 2 << 30), (" 1 tb ", 1 << 40)]
)
def test_sizes_have_binary_units(text, size):
    assert size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5G", "12 monkeys"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="is no size: write a number of bytes"):
        size_in_bytes(text)
