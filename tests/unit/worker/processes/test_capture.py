"""What is kept of a stream, to the byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzfarm_worker.processes.capture import Capture, broken_characters, decode_newest, decode_text, whole_characters


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(0, 200), st.integers(0, 200))
def test_head_and_tail_are_exact_however_the_stream_is_cut(pieces, limit, tail):
    capture = Capture(limit, tail_bytes=tail)
    for piece in pieces:
        capture.feed(memoryview(piece))
    whole = b"".join(pieces)
    kept_tail = min(tail, limit)
    head = whole[: limit - kept_tail]
    rest = whole[len(head) :]
    assert capture.value() == head + (rest[-kept_tail:] if kept_tail else b"")
    assert capture.total_bytes == len(whole)
    assert capture.truncated == (len(whole) > limit)


def test_a_full_capture_only_counts():
    capture = Capture(3)
    capture.feed(memoryview(b"ab"))
    assert not capture.counts_only
    capture.feed(memoryview(b"cd"))
    assert capture.counts_only
    capture.skip(10)
    assert (capture.value(), capture.total_bytes) == (b"abc", 14)


@pytest.mark.parametrize("on", ["tail", "data"])
def test_it_does_not_only_count_while_somebody_looks(on):
    capture = Capture(2, tail_bytes=int(on == "tail"), on_data=(lambda _: None) if on == "data" else None)
    capture.feed(memoryview(b"abcdef"))
    assert not capture.counts_only
    capture.close()


def test_the_newest_is_told_of_what_is_kept_and_once_asked_for_of_what_is_not():
    capture = Capture(4)
    capture.feed(memoryview(b"abc"))
    assert capture.newest(2) == b"bc"
    capture.feed(memoryview(b"de"))
    assert capture.newest(2) == b"de"
    capture.feed(memoryview(b"f"))
    assert capture.newest(2) == b"ef"
    assert (capture.value(), capture.total_bytes, capture.truncated) == (b"abcd", 6, True)


def test_output_beyond_the_limit_is_only_counted_until_somebody_asks_for_the_newest():
    capture = Capture(1)
    capture.feed(memoryview(b"abc"))
    assert capture.counts_only
    assert capture.newest(2) == b""
    assert not capture.counts_only
    capture.feed(memoryview(b"de"))
    assert capture.newest(2) == b"de"


@given(st.text(min_size=1), st.data())
def test_a_cut_text_is_a_prefix_of_the_whole(text, data):
    whole = text.encode("utf-8", "replace")
    cut = data.draw(st.integers(0, len(whole)))
    kept = decode_text(whole[:cut], cut_at=cut)
    assert whole.decode().startswith(kept)
    assert cut - len(kept.encode()) < 4


@given(st.text(min_size=1), st.data())
def test_where_the_middle_is_cut_out_there_are_no_half_characters(text, data):
    whole = text.encode("utf-8", "replace")
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, len(whole)))
    kept = decode_text(whole[:begin] + whole[end:], cut_at=begin)
    assert kept == whole[:begin].decode(errors="ignore") + whole[end:].decode(errors="ignore")


@given(st.binary())
def test_at_most_three_bytes_are_left_out_of_anything(data):
    assert 0 <= len(data) - whole_characters(data) <= 3
    assert 0 <= broken_characters(data) <= 3


@pytest.mark.parametrize("data", [b"\x80\x80\x80\x80", b"\xff", b"a\xc3\xa9", b"\xf0\x9f\x98\x80", b""])
def test_what_is_whole_or_hopeless_stays(data):
    assert whole_characters(data) == len(data)


def test_an_uncut_text_keeps_its_bad_end():
    assert decode_text(b"a\xc3", cut_at=None) == "a\ufffd"
    assert decode_text(b"a\xc3", cut_at=2) == "a"


@given(st.text(min_size=1), st.data())
def test_the_newest_text_begins_and_ends_with_whole_characters(text, data):
    whole = text.encode("utf-8", "replace")
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, len(whole)))
    newest = decode_newest(whole[begin:end])
    assert newest == whole[begin:end].decode(errors="ignore")
