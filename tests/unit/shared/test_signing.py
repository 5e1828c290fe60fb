from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from travelling import mutations

from fuzzfarm_shared.errors import CodecError, ExpiredError, SchemaVersionError, SettingsError, SignatureError
from fuzzfarm_shared.signing import MIN_KEY_BYTES, SCHEMA_VERSION, Signer

OLD, NEW, OTHER = (letter * MIN_KEY_BYTES for letter in (b"o", b"n", b"x"))
CONTEXT = ("operations", "batch", "submit", 3)
keys = st.sampled_from([(), (OLD,), (NEW, OLD)])
contexts = st.lists(st.text(st.characters(codec="utf-8"), max_size=5) | st.integers(0, 20), max_size=4).map(tuple)


@given(st.binary(), contexts, keys)
def test_an_envelope_opens_for_its_context(
    body: bytes, context: tuple[str | int, ...], kept: tuple[bytes, ...]
) -> None:
    assert Signer(kept).open(Signer(kept).seal(body, context), context) == body


@given(st.binary(), contexts, contexts)
def test_a_signed_envelope_opens_for_no_other_context(
    body: bytes, context: tuple[str | int, ...], other: tuple[str | int, ...]
) -> None:
    envelope = Signer((OLD,)).seal(body, context)
    if list(map(str, context)) != list(map(str, other)):
        with pytest.raises(SignatureError, match="signature is wrong"):
            Signer((OLD,)).open(envelope, other)


@given(st.binary(max_size=40), st.data())
def test_a_signed_envelope_with_one_changed_bit_does_not_open(body: bytes, data: st.DataObject) -> None:
    envelope = bytearray(Signer((OLD,)).seal(body, CONTEXT, not_after=2_000))
    bit = data.draw(st.integers(0, len(envelope) * 8 - 1))
    envelope[bit // 8] ^= 1 << bit % 8
    with pytest.raises((SignatureError, CodecError)):
        Signer((OLD,)).open(bytes(envelope), CONTEXT, now_s=1_000)


@given(keys, st.binary(max_size=60) | mutations(st.binary(max_size=30).map(lambda body: Signer().seal(body, CONTEXT))))
def test_any_bytes_open_or_raise_an_error_of_ours(kept: tuple[bytes, ...], raw: bytes) -> None:
    with contextlib.suppress(CodecError, SignatureError):
        Signer(kept).open(raw, CONTEXT, now_s=1.0)


def test_a_key_may_be_rotated_host_by_host() -> None:
    from_old, from_new = (Signer(kept).seal(b"x", CONTEXT) for kept in ((OLD,), (NEW, OLD)))
    rotating = Signer((NEW, OLD))
    assert rotating.open(from_old, CONTEXT) == rotating.open(from_new, CONTEXT) == b"x"
    assert Signer((OLD, NEW)).open(from_new, CONTEXT) == b"x"
    with pytest.raises(SignatureError, match="signature is wrong"):
        Signer((OLD,)).open(from_new, CONTEXT)


@pytest.mark.parametrize(
    ("writer", "reader", "message"),
    [
        ((OTHER,), (OLD,), "signature is wrong"),
        ((), (OLD,), "is not signed"),
        ((OLD,), (), "this side has no key"),
    ],
)
def test_an_envelope_of_a_side_with_other_keys_does_not_open(
    writer: tuple[bytes, ...], reader: tuple[bytes, ...], message: str
) -> None:
    with pytest.raises(SignatureError, match=message) as caught:
        Signer(reader).open(Signer(writer).seal(b"secret", CONTEXT), CONTEXT)
    assert "FUZZFARM_SIGNING_KEY" in str(caught.value)


@pytest.mark.parametrize("kept", [(), (OLD,)])
def test_an_envelope_opens_until_its_time_is_over(kept: tuple[bytes, ...]) -> None:
    envelope = Signer(kept).seal(b"x", CONTEXT, not_after=1_000)
    assert Signer(kept).open(envelope, CONTEXT, now_s=999.9) == b"x"
    with pytest.raises(ExpiredError, match="expired"):
        Signer(kept).open(envelope, CONTEXT, now_s=1_000.0)


def test_an_envelope_that_is_not_ours_is_not_called_expired() -> None:
    envelope = Signer((OTHER,)).seal(b"x", CONTEXT, not_after=1_000)
    with pytest.raises(SignatureError, match="signature is wrong"):
        Signer((OLD,)).open(envelope, CONTEXT, now_s=2_000.0)


def test_an_envelope_of_a_newer_version_says_what_to_upgrade() -> None:
    envelope = bytes([SCHEMA_VERSION + 1]) + Signer((OLD,)).seal(b"x", CONTEXT)[1:]
    with pytest.raises(SchemaVersionError, match="upgrade it on this host") as caught:
        Signer((OLD,)).open(envelope, CONTEXT)
    assert (caught.value.found, caught.value.known) == (SCHEMA_VERSION + 1, SCHEMA_VERSION)


def test_a_short_key_is_refused_without_being_shown() -> None:
    with pytest.raises(SettingsError, match=re.escape("openssl rand -hex 32")) as caught:
        Signer((b"short-secret",))
    assert "short-secret" not in str(caught.value)


def test_a_key_is_not_shown() -> None:
    assert "ooo" not in repr(Signer((OLD,)))


def test_an_envelope_is_measured_by_the_body_that_it_may_hold() -> None:
    signer = Signer((b"k" * 32,), max_body_bytes=10)
    signer.check_size(signer.seal(b"x" * 10, ()))
    with pytest.raises(CodecError, match="FUZZFARM_MAX_PAYLOAD_BYTES"):
        signer.check_size(signer.seal(b"x" * 11, ()))
