"""Payloads: the operations of a chunk, encoded once and in columns.

What operations share (their kind and options) is written once as a spec; only what differs per operation (the
arguments of a call, the command of a job) makes a row. A chunk of 10,000 calls of one function is one spec and one
column, so that it is encoded and decoded at the speed of msgpack.

Body: `[first, count, keys or None, specs, spec_of or None, left column, right column or None]`, where a spec is
`[kind, options]`, `spec_of` holds one unsigned 16-bit number per operation (None: all have spec 0) and the columns
hold the first and second `per_operation` field of each operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from pydantic import ValidationError

from fuzzfarm_shared.columns import pack_column, unpack_column
from fuzzfarm_shared.errors import CodecError, UnknownKindError
from fuzzfarm_shared.operations import KINDS, LEFT_TO_WORKER, AnyOperation, CallGroup, CallOperation, FuzzOperation
from fuzzfarm_shared.values import pack, unpack

MAX_SPECS = 65_535
"""Distinct specs in one payload: what 16 bits can number."""


def _shared_fields(cls: type[AnyOperation]) -> tuple[str, ...]:
    return tuple(name for name in cls.model_fields if name != "key" and name not in cls.per_operation)


_LEFT_TO_WORKER = frozenset(LEFT_TO_WORKER)
_SHARED_FIELDS = {cls: _shared_fields(cls) for cls in KINDS.values()}
_READ_SHARED = {cls: attrgetter(*names) for cls, names in _SHARED_FIELDS.items()}


@dataclass(slots=True)
class PayloadBuilder:
    """Collects operations into one payload; `first` is the batch position of the first of them."""

    first: int
    keys: list[str | None] = field(default_factory=list)
    named: int = 0
    fuzz_operation: FuzzOperation | None = None
    """The one operation of a payload that is run in shards."""
    _specs: dict[Any, int] = field(default_factory=dict)
    _encoded_specs: list[list[Any]] = field(default_factory=list)
    _spec_of: list[int] = field(default_factory=list)
    _left: list[Any] = field(default_factory=list)
    _right: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._left)

    @property
    def full_of_specs(self) -> bool:
        """Whether another operation might not find room for its spec."""
        return len(self._encoded_specs) >= MAX_SPECS

    def add(self, operation: AnyOperation) -> None:
        """Append one operation."""
        self.keys.append(operation.key)
        self.named += operation.key is not None
        self._spec_of.append(self._spec(operation))
        if isinstance(operation, FuzzOperation):
            self.fuzz_operation = operation
        if isinstance(operation, CallOperation):
            self._left.append(operation.args)
            self._right.append(operation.kwargs or None)
        else:
            row = [getattr(operation, name) for name in operation.per_operation]
            self._left.append(row[0] if row else None)
            self._right.append(row[1] if len(row) > 1 else None)

    def add_calls(self, group: CallGroup, arguments: Sequence[list[Any]]) -> None:
        """Append one call of the group's target for each list of arguments."""
        count = len(arguments)
        self.keys.extend([None] * count)
        self._spec_of.extend([self._spec(group.template)] * count)
        self._left.extend(arguments)
        self._right.extend([None] * count)

    def add_call(self, template: CallOperation, args: list[Any], kwargs: dict[str, Any] | None) -> None:
        """Append one call with the options of `template`, without a model of its own."""
        self.keys.append(None)
        self._spec_of.append(self._spec(template))
        self._left.append(args)
        self._right.append(kwargs or None)

    def _spec(self, operation: AnyOperation) -> int:
        cls = type(operation)
        # A field that was given its default is not one that was left to the worker.
        given = _LEFT_TO_WORKER & operation.model_fields_set
        identity: Any = (cls, _READ_SHARED[cls](operation), given)
        try:
            known = self._specs.get(identity)
        except TypeError:  # an unhashable option, such as env
            identity = (cls, repr(identity[1]), given)
            known = self._specs.get(identity)
        if known is not None:
            return known
        number = self._specs[identity] = len(self._encoded_specs)
        options = operation.model_dump(include=set(_SHARED_FIELDS[cls]), exclude_defaults=True)
        options.update((name, getattr(operation, name)) for name in LEFT_TO_WORKER if name in given)
        self._encoded_specs.append([cls.kind, options])
        return number

    def encode(self) -> bytes:
        """Return the body.

        Raises:
            UnsupportedValueError: when an argument cannot travel.
        """
        keys = self.resolved_keys() if self.named else None
        spec_of = pack_column("H", self._spec_of) if len(self._encoded_specs) > 1 else None
        right = self._right if any(value is not None for value in self._right) else None
        return pack([self.first, len(self), keys, self._encoded_specs, spec_of, self._left, right])

    def resolved_keys(self) -> list[str]:
        """Return the key of every operation, positions where none was given."""
        return [str(self.first + i) if key is None else key for i, key in enumerate(self.keys)]

    def halves(self) -> tuple[PayloadBuilder, PayloadBuilder]:
        """Return two builders with half of the operations each, for a payload that came out too large."""
        middle = len(self) // 2
        return self._part(0, middle), self._part(middle, len(self))

    def _part(self, start: int, stop: int) -> PayloadBuilder:
        keys = self.keys[start:stop]
        # Numbered by first use, as if these operations had been added alone: a resumed submit compares the encodings.
        numbers = {old: new for new, old in enumerate(dict.fromkeys(self._spec_of[start:stop]))}
        return PayloadBuilder(
            first=self.first + start,
            keys=keys,
            named=sum(key is not None for key in keys),
            _encoded_specs=[self._encoded_specs[old] for old in numbers],
            _spec_of=[numbers[old] for old in self._spec_of[start:stop]],
            _left=self._left[start:stop],
            _right=self._right[start:stop],
        )


@dataclass(frozen=True, slots=True)
class Payload:
    """Decoded operations of a chunk.

    Attributes:
        first: batch position of the first operation.
        keys: one key per operation, or None where positions are the keys.
        specs: one checked operation per spec, without the fields that differ per operation.
        spec_of: index into `specs` for each operation, or None where all have the first.
        left: first `per_operation` field of each operation.
        right: second one, or None where no operation has it.
    """

    first: int
    keys: list[str] | None
    specs: list[AnyOperation]
    spec_of: Sequence[int] | None
    left: list[Any]
    right: list[Any] | None

    def __len__(self) -> int:
        return len(self.left)

    def spec(self, index: int) -> AnyOperation:
        """Return the shared options of the operation at `index`."""
        return self.specs[0 if self.spec_of is None else self.spec_of[index]]

    def keys_of(self, indexes: Sequence[int]) -> list[str]:
        """Return the keys of the operations at `indexes`."""
        if self.keys is None:
            return [str(self.first + index) for index in indexes]
        return [self.keys[index] for index in indexes]

    def operation(self, index: int) -> AnyOperation:
        """Return one operation as a model, for paths where speed does not matter."""
        spec = self.spec(index)
        fields = dict(zip(spec.per_operation, (self.left[index], self._right_of(index)), strict=False))
        given = {name: value for name, value in fields.items() if value is not None}
        return type(spec).model_validate(
            {**spec.model_dump(exclude_unset=True), **given, "key": self.keys_of([index])[0]}
        )

    def _right_of(self, index: int) -> Any:
        return self.right[index] if self.right is not None else None

    def rows(self) -> Iterator[tuple[AnyOperation, Any, Any]]:
        """Yield the spec and the two fields of every operation, in order."""
        for index, left in enumerate(self.left):
            yield self.spec(index), left, self._right_of(index)


def decode_payload(body: bytes) -> Payload:
    """Return the operations in `body`, every option checked against its field's limits.

    Raises:
        CodecError: for a body that `PayloadBuilder.encode` cannot have made.
    """
    try:
        first, count, keys, specs, spec_of, left, right = unpack(body)
        checked = [_checked_spec(*spec) for spec in specs]
        numbers = None if spec_of is None else unpack_column("H", spec_of)
        payload = Payload(first, keys, checked, numbers, left, right)
        _check_shape(payload, count)
    except UnknownKindError:
        raise
    except (TypeError, ValueError, KeyError, ValidationError, RecursionError) as exc:
        raise CodecError(f"not a payload of operations: {exc}") from exc
    return payload


def _checked_spec(kind: str, options: dict[str, Any]) -> AnyOperation:
    if type(kind) is str and kind not in KINDS:
        raise UnknownKindError(kind)
    cls = KINDS[kind]
    placeholders = {"command": ["-"]} if "command" in cls.per_operation else {}
    return cls.model_validate({**placeholders, **options})


def _check_shape(payload: Payload, count: Any) -> None:
    if type(payload.left) is not list or not {type(payload.right), type(payload.keys)} <= {list, type(None)}:
        raise CodecError("a column is of another type")
    columns = [payload.left, payload.right, payload.spec_of, payload.keys]
    lengths = {len(column) for column in columns if column is not None}
    if lengths != {count} or not count or type(payload.first) is not int or payload.first < 0:
        raise CodecError("its columns differ in length")
    if not payload.specs or max(payload.spec_of or (0,)) >= len(payload.specs):
        raise CodecError("an operation has no options")
    if payload.keys is not None and not all(type(key) is str for key in payload.keys):
        raise CodecError("a key is not text")
    if not _all_plain_calls(payload) and not all(_row_fits(*row) for row in payload.rows()):
        raise CodecError("an operation has arguments of a wrong type")


def _all_plain_calls(payload: Payload) -> bool:
    """Whether one look at the types of a column is enough (10x faster than a look at each row)."""
    return (
        payload.right is None
        and set(map(type, payload.left)) == {list}
        and all(spec.kind == "call" for spec in payload.specs)
    )


def _row_fits(spec: AnyOperation, left: Any, right: Any) -> bool:
    if spec.kind == "call":
        return type(left) is list and (
            right is None or (type(right) is dict and all(type(name) is str for name in right))
        )
    if spec.kind == "subprocess":
        words = type(left) is list and bool(left) and all(type(part) is str and "\0" not in part for part in left)
        return words and (right is None or type(right) is bytes)
    return left is None and right is None
