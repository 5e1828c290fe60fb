import pytest

from fuzzfarm.cli.printable import printable, shortened


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain, tab\tand\nline", "plain, tab\tand\nline"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("bell\x07 back\x08 del\x7f c1\x9b31m", "bell back del c131m"),
        ("\x1b[2J\x1b[Hover\rwritten", "overwritten"),
        ("right\u202eto left", "rightto left"),
        ("half an escape \x1b", "half an escape "),
        ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
        ("Größe 漢字", "Größe 漢字"),
    ],
)
def test_printable_text_keeps_words_and_drops_what_controls_a_terminal(text, safe):
    assert printable(text) == safe


def test_shortened_text_is_one_line_of_at_most_the_limit():
    assert shortened("a\n  b\tc", 80) == "a b c"
    assert shortened("x" * 50, 10) == "x" * 9 + "…"
