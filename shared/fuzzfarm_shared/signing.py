"""Envelopes: a schema version, an optional signature and an expiry around every payload.

    byte 0     schema version
    byte 1     0 unsigned, 1 HMAC-SHA256
    bytes 2-9  not after, seconds since the epoch (big endian; 0 means no limit)
    32 bytes   the signature, when byte 1 is 1
    the rest   the body

The signature covers the context (purpose, batch key, submit id, position, ...), each part with its length before it,
then the header and the body; so a payload is good for one place in one batch only.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from fuzzfarm_shared.errors import CodecError, ExpiredError, SchemaVersionError, SettingsError, SignatureError

SCHEMA_VERSION = 1
"""Written into every payload; raised when an older fuzzfarm could not read what we write."""

MIN_KEY_BYTES = 32
"""As long as the digest: RFC 2104, section 3."""

MAX_BODY_BYTES = 256 * 1024 * 1024
"""Most that any setting allows: half of what servers take as one value (Redis, proto-max-bulk-len)."""

SLACK_BYTES = 8 * 1024 * 1024
"""What many outcomes together may take beyond the largest value: twice what workers put into a segment."""

_HEADER = struct.Struct(">BBQ")
_MAC_BYTES = 32


@dataclass(frozen=True, slots=True)
class Signer:
    """Seals payloads with the first of its keys and accepts any of them; without keys it neither signs nor checks."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)
    max_body_bytes: int = MAX_BODY_BYTES

    def __post_init__(self) -> None:
        if any(len(key) < MIN_KEY_BYTES for key in self.keys):
            raise SettingsError(
                f"a signing key needs {MIN_KEY_BYTES} bytes or more: make one with `openssl rand -hex 32`"
            )

    def seal(self, body: bytes, context: Sequence[str | int], not_after: int = 0) -> bytes:
        """Return the envelope of `body` for `context`, valid until `not_after` (epoch seconds; 0: no limit)."""
        header = _HEADER.pack(SCHEMA_VERSION, bool(self.keys), not_after)
        if not self.keys:
            return header + body
        return header + _signature(self.keys[0], context, header, body) + body

    def check_size(self, envelope: bytes) -> None:
        """Raise CodecError for an envelope of a larger body than this side takes, before anything of it is read."""
        if len(envelope) > _HEADER.size + _MAC_BYTES + self.max_body_bytes:
            raise CodecError(
                f"the payload takes {len(envelope):,} bytes and the limit here is {self.max_body_bytes:,}: "
                "set the same FUZZFARM_MAX_PAYLOAD_BYTES on every host"
            )

    def open(self, envelope: bytes, context: Sequence[str | int], now_s: float = 0.0) -> bytes:
        """Return the body of `envelope`, checked for `context` and, where `now_s` is given, for its expiry.

        Raises:
            CodecError: for bytes that are no envelope.
            SchemaVersionError: for one that a newer fuzzfarm wrote.
            SignatureError: for a missing or wrong signature.
            ExpiredError: for one that is right, and too old.
        """
        if len(envelope) > _HEADER.size + _MAC_BYTES + self.max_body_bytes + SLACK_BYTES:
            self.check_size(envelope)
        if len(envelope) < _HEADER.size:
            raise CodecError("the payload is cut short: it was not written by fuzzfarm")
        version, signed, not_after = _HEADER.unpack_from(envelope)
        if version > SCHEMA_VERSION:
            raise SchemaVersionError(version, SCHEMA_VERSION)
        if version == 0 or signed > 1:
            raise CodecError("the payload has no valid header: it was not written by fuzzfarm")
        body = self._verified(envelope, context) if signed else self._unsigned(envelope)
        if not_after and now_s >= not_after:
            raise ExpiredError("the payload has expired: submit its operations again")
        return body

    def _unsigned(self, envelope: bytes) -> bytes:
        if self.keys:
            raise SignatureError("the payload is not signed: give its writer the same FUZZFARM_SIGNING_KEY")
        return envelope[_HEADER.size :]

    def _verified(self, envelope: bytes, context: Sequence[str | int]) -> bytes:
        if not self.keys:
            raise SignatureError("the payload is signed and this side has no key: set FUZZFARM_SIGNING_KEY")
        header = envelope[: _HEADER.size]
        mac = envelope[_HEADER.size : _HEADER.size + _MAC_BYTES]
        body = envelope[_HEADER.size + _MAC_BYTES :]
        if not any(hmac.compare_digest(mac, _signature(key, context, header, body)) for key in self.keys):
            raise SignatureError("the payload's signature is wrong: use the same FUZZFARM_SIGNING_KEY on every host")
        return body


def _signature(key: bytes, context: Sequence[str | int], header: bytes, body: bytes) -> bytes:
    mac = hmac.new(key, digestmod="sha256")
    for part in context:
        raw = str(part).encode()
        mac.update(struct.pack(">I", len(raw)))
        mac.update(raw)
    mac.update(header)
    mac.update(body)
    return mac.digest()
