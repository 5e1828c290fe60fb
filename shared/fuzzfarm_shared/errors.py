"""Every error that fuzzfarm raises, as one flat tree under `FuzzfarmError`.

    FuzzfarmError
    ├── InvalidOperationError (ValueError)    an operation, key or file that cannot be accepted
    │   ├── DuplicateKeyError                 two operations of one batch have the same key
    │   ├── PayloadTooLargeError              an operation is larger than a chunk may be
    │   └── TargetError                       a target that cannot be named or imported
    ├── BatchConflictError                    the batch key exists with other content
    ├── BatchNotFoundError (LookupError)      no such batch, or it has expired
    ├── BatchNotSealedError                   the batch is not wholly submitted yet
    ├── QueueFullError                        the farm's queue is full and `wait=False` was asked
    ├── FarmUnreachableError (ConnectionError)
    │   ├── FarmAuthenticationError           the server refused user or password
    │   └── NotARedisServerError              something else listens at that address
    ├── FarmFullError                         the server has no memory left
    ├── CodecError (ValueError)               bytes that cannot be decoded
    │   └── SchemaVersionError                written by a newer fuzzfarm
    ├── UnsupportedValueError (TypeError)     a value that cannot travel
    ├── RemoteError                           an operation of an executor failed on the farm
    │   └── RemoteTimeoutError (TimeoutError) it did not end in time
    ├── SignatureError                        a payload whose signature is wrong or missing
    └── SettingsError (ValueError)            a setting that cannot work

Each message is one sentence that says what to do; what explains it is kept as attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from fuzzfarm_shared.outcomes import OperationError


class FuzzfarmError(Exception):
    """Base of all errors of fuzzfarm."""


class InvalidOperationError(FuzzfarmError, ValueError):
    """An operation, a key or a file of operations that cannot be accepted; nothing of it was sent."""


class DuplicateKeyError(InvalidOperationError):
    """Two operations of one batch have the same key.

    Attributes:
        key: the key that came twice, where it is known.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the key {key!r} is used by two operations of this batch: give each operation its own key")


class PayloadTooLargeError(InvalidOperationError):
    """One operation, encoded, is larger than a chunk may be.

    Attributes:
        key: the operation's key.
        size_bytes: its encoded size.
        limit_bytes: the largest size that is accepted.
    """

    def __init__(self, key: str, size_bytes: int, limit_bytes: int) -> None:
        self.key = key
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        super().__init__(
            f"operation {key!r} takes {size_bytes:,} bytes and the limit is {limit_bytes:,}: "
            "pass a path or a smaller value, or raise FUZZFARM_MAX_PAYLOAD_BYTES on every host"
        )


class TargetError(InvalidOperationError):
    """A target that cannot be sent by name, or named but not found.

    Attributes:
        target: what was given, as text.
    """

    def __init__(self, target: str, message: str) -> None:
        self.target = target
        super().__init__(message)


class BatchConflictError(FuzzfarmError):
    """A batch with this key exists and holds other operations.

    Attributes:
        key: the batch's key.
    """

    def __init__(self, key: str, difference: str) -> None:
        self.key = key
        super().__init__(f"batch {key!r} exists with other content ({difference}): choose another key, or attach to it")


class BatchNotFoundError(FuzzfarmError, LookupError):
    """There is no batch with this key, or it has expired.

    Attributes:
        key: the key that was asked for.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(
            f"there is no batch {key!r} on this farm (never submitted, or expired): list them with `fuzzfarm batches`"
        )


class BatchNotSealedError(FuzzfarmError):
    """The batch is not wholly submitted yet, so it has no final aggregate.

    Attributes:
        key: the batch's key.
        accepted: operations that the farm has accepted so far.
    """

    def __init__(self, key: str, accepted: int) -> None:
        self.key = key
        self.accepted = accepted
        super().__init__(
            f"batch {key!r} is still being submitted ({accepted:,} operations so far): "
            "wait for its producer, or submit the same operations again to finish it"
        )


class QueueFullError(FuzzfarmError):
    """The farm has as many chunks waiting as it may, and the caller asked not to wait.

    Attributes:
        depth: chunks that are waiting.
        limit: how many may wait.
    """

    def __init__(self, depth: int, limit: int) -> None:
        self.depth = depth
        self.limit = limit
        super().__init__(
            f"the queue holds {depth:,} chunks and the limit is {limit:,}: start workers or submit with wait=True; "
            "what was accepted so far is kept, and submitting again goes on from there"
        )


class FarmUnreachableError(FuzzfarmError, ConnectionError):
    """The server could not be reached, or was away, or refused to work, for longer than we may wait.

    Attributes:
        url: the server's address without its password.
    """

    def __init__(self, url: str, message: str) -> None:
        self.url = url
        super().__init__(message)


class FarmAuthenticationError(FarmUnreachableError):
    """The server refused the user name or the password."""


class NotARedisServerError(FarmUnreachableError):
    """Something that does not speak the Redis protocol answers at that address."""


class FarmFullError(FuzzfarmError):
    """The server has no memory left for what it was to keep, and had none for as long as we wait.

    Attributes:
        url: the server's address without its password.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(f"the server at {url} is full: give it more memory, or wait until results of batches expire")


class CodecError(FuzzfarmError, ValueError):
    """Bytes that are not what this version of fuzzfarm writes."""


class UnknownKindError(CodecError):
    """A payload holds operations of a kind that this version does not know."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"this fuzzfarm knows no operations of kind {kind[:50]!r}: upgrade it on this host")


class SchemaVersionError(CodecError):
    """The payload was written by a newer version.

    Attributes:
        found: the schema version of the payload.
        known: the newest one that this version reads.
    """

    def __init__(self, found: int, known: int) -> None:
        self.found = found
        self.known = known
        super().__init__(
            f"the payload has schema version {found} and this fuzzfarm reads up to {known}: upgrade it on this host"
        )


class UnsupportedValueError(FuzzfarmError, TypeError):
    """A value that msgpack and our documented extensions cannot carry."""


class SignatureError(FuzzfarmError):
    """A payload that is not signed, or not with a key that this side accepts; it is never executed."""


class ExpiredError(SignatureError):
    """A payload that is older than its writer allowed; it is never executed."""


class RemoteError(FuzzfarmError):
    """An operation of an executor failed on the farm.

    Its class there cannot be raised here: outcomes are data, and nothing is imported to read them. Look at
    `error.type`. The traceback from the worker is a note of this error.

    Attributes:
        error: the recorded error: kind, type, message, traceback, worker.
    """

    def __init__(self, error: OperationError) -> None:
        self.error = error
        super().__init__(f"{error.type}: {error.message}" if error.type else error.message)
        if error.traceback:
            self.add_note(f"On worker {error.worker}:\n{error.traceback.rstrip()}")

    def __reduce__(self) -> tuple[type[Self], tuple[OperationError]]:
        return type(self), (self.error,)


class RemoteTimeoutError(RemoteError, TimeoutError):
    """An operation of an executor did not end within its timeout, or raised TimeoutError itself."""


class SettingsError(FuzzfarmError, ValueError):
    """A setting that cannot work; the message names the setting and what to write instead."""
