from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzfarm_shared.errors import InvalidOperationError
from fuzzfarm_shared.keys import MAX_BATCH_KEY_CHARS, AttemptId, Keys, check_batch_key, new_batch_key
from fuzzfarm_shared.store import OutcomeCursor

batch_keys = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:+/-]{0,30}", fullmatch=True)
tokens = st.from_regex(r"[0-9]{1,3}-[0-9a-f]{16}", fullmatch=True)


@given(st.builds(AttemptId, batch_keys, st.integers(0, 10**9), tokens))
def test_an_attempt_id_is_read_as_it_was_written(attempt: AttemptId) -> None:
    assert AttemptId.parse(str(attempt)) == attempt


@pytest.mark.parametrize(
    "text", ["", "a", "a/1", "a/@t", "/1@t", "a/1@", "a/-1@t", "a/+1@t", "a/1_0@t", "a/ 1@t", "a/²@t", "a/x@t"]
)
def test_text_that_is_no_attempt_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no attempt id"):
        AttemptId.parse(text)


@given(st.text())
def test_any_text_is_an_attempt_id_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        AttemptId.parse(text)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 50_000))
def test_a_cursor_is_read_as_it_was_written(moment: int, place: int, taken: int) -> None:
    cursor = OutcomeCursor(f"{moment}-{place}", taken)
    assert OutcomeCursor.parse(str(cursor)) == cursor


def test_the_cursor_of_the_beginning_is_read_as_it_was_written() -> None:
    assert OutcomeCursor.parse(str(OutcomeCursor())) == OutcomeCursor() == OutcomeCursor.parse("0")


@pytest.mark.parametrize(
    "text", ["", "-", "$", "1-2-3", "--1", "²", "1+-5", "1+x", "1+1_0", "1 +2", f"{2**64}-0", "1\n", "+1"]
)
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no cursor"):
        OutcomeCursor.parse(text)


@given(st.text())
def test_any_text_is_a_cursor_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        OutcomeCursor.parse(text)


@given(batch_keys)
def test_a_valid_batch_key_is_accepted(key: str) -> None:
    assert check_batch_key(key) == key


@pytest.mark.parametrize("key", ["", "-a", "a b", "a@b", "a\n", "ä", "a{b}", "x" * (MAX_BATCH_KEY_CHARS + 1)])
def test_a_batch_key_with_other_characters_says_what_to_use(key: str) -> None:
    with pytest.raises(InvalidOperationError, match="cannot be a batch key: use 1 to 200 letters"):
        check_batch_key(key)


def test_new_batch_keys_are_valid_and_differ() -> None:
    keys = {check_batch_key(new_batch_key()) for _ in range(100)}
    assert len(keys) == 100


def test_all_keys_lie_in_their_namespace() -> None:
    from fuzzfarm_shared.keys import Lane, Part

    keys = Keys("ns")
    names = [keys.queue, keys.leases, keys.batches, keys.workers, keys.worker("w"), keys.poke("w")]
    names += [*keys.wake_lists()] + [keys.batch("b", part) for part in Part]
    names += [keys.findings, keys.findings_of("m:f"), keys.findings_seen("m:f"), keys.findings_of("s:m:f")]
    assert len(set(names)) == len(names)
    assert set(keys.wake_lists()) < set(names)
    assert set(keys.wake_lists().values()) == set(Lane)
    assert all(name.startswith("ns:") for name in names)
