"""Values as msgpack: what travels, how, and a clear error for what does not.

Beyond msgpack's own types these keep their type on the way: tuple, set, frozenset, datetime, date, time, timedelta,
Decimal, complex, UUID, integers of any size, and our own result classes. These arrive as plain data: dataclasses and
pydantic models as dicts, named tuples as tuples, enum members as their values, paths as str, exceptions as
`{"type": ..., "message": ...}`, numpy scalars as Python numbers. Anything else raises `UnsupportedValueError`.
Decoding builds only the types of the table below: it imports nothing and never instantiates a class by name.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import pathlib
import uuid
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, cast

import msgpack
from pydantic import BaseModel

from fuzzfarm_shared.errors import CodecError, UnsupportedValueError
from fuzzfarm_shared.outcomes import ErrorKind, Finding, FuzzResult, OperationError, SubprocessResult

MAX_BIG_INT_BYTES = 1 << 20
"""Largest integer that travels (8 million bits): decoding more would cost the reader quadratic time to print."""


MAX_EXTENSION_DEPTH = 32
"""How deep values that need an extension (tuples, sets, ...) may contain each other. Each level is one more call of
msgpack's decoder, with 40 KB of C stack (1,024 entries, msgpack/unpack_template.h): 300 levels crash it."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Extension:
    """How one type travels: as an ext code around the msgpack bytes of plain data."""

    code: int
    type: type
    to_body: Callable[[Any, int], bytes]
    """Takes the value and its depth."""
    from_plain: Callable[[Any], Any]


def _through(to_plain: Callable[[Any], Any]) -> Callable[[Any, int], bytes]:
    return lambda value, depth: _pack(to_plain(value), depth)


def _record(code: int, cls: type, build: Callable[..., Any] | None = None) -> _Extension:
    names = [field.name for field in dataclasses.fields(cls)]
    make = build or cls
    return _Extension(
        code, cls, _through(lambda record: [getattr(record, name) for name in names]), lambda row: make(*row)
    )


def _set_body(members: Any, depth: int) -> bytes:
    # Sorted, so that equal sets have equal bytes; each member is encoded once, or nested sets would take 2**depth.
    packed = sorted(_pack(member, depth) for member in members)
    header: bytes = msgpack.Packer().pack_array_header(len(packed))
    return header + b"".join(packed)


def _int_to_bytes(number: int) -> bytes:
    size = number.bit_length() // 8 + 1
    if size > MAX_BIG_INT_BYTES:
        raise UnsupportedValueError(f"an integer of {size:,} bytes is too large to send: write it to a file instead")
    return number.to_bytes(size, "big", signed=True)


def _int_from_bytes(raw: Any) -> int:
    if len(_bytes(raw)) > MAX_BIG_INT_BYTES:
        raise CodecError(f"an integer of {len(raw):,} bytes: not written by fuzzfarm")
    return int.from_bytes(raw, "big", signed=True)


def _bytes(raw: Any) -> bytes:
    if type(raw) is not bytes:
        raise CodecError(f"{type(raw).__name__} where bytes belong: not written by fuzzfarm")
    return raw


def _clock_to_plain(moment: dt.datetime | dt.time) -> Any:
    # The second pass through an hour that comes twice (PEP 495) is not in the ISO form.
    return [moment.isoformat(), moment.fold] if moment.fold else moment.isoformat()


def _clock(cls: type[dt.datetime | dt.time], plain: Any) -> dt.datetime | dt.time:
    text, fold = plain if type(plain) is list else (plain, 0)
    return cls.fromisoformat(text).replace(fold=fold)


def _operation_error(kind: str, *rest: Any) -> OperationError:
    return OperationError(ErrorKind(kind), *rest)


def _finding(*row: Any) -> Finding:
    finding = Finding(*row)
    return dataclasses.replace(finding, kind=ErrorKind(finding.kind))


_EXTENSIONS = (
    _Extension(1, tuple, _through(list), tuple),
    _Extension(2, set, _set_body, set),
    _Extension(3, frozenset, _set_body, frozenset),
    _Extension(4, dt.datetime, _through(_clock_to_plain), partial(_clock, dt.datetime)),
    _Extension(5, dt.date, _through(dt.date.isoformat), dt.date.fromisoformat),
    _Extension(6, dt.time, _through(_clock_to_plain), partial(_clock, dt.time)),
    _Extension(
        7, dt.timedelta, _through(lambda d: [d.days, d.seconds, d.microseconds]), lambda row: dt.timedelta(*row)
    ),
    _Extension(8, Decimal, _through(str), Decimal),
    _Extension(9, complex, _through(lambda number: [number.real, number.imag]), lambda row: complex(*row)),
    _Extension(10, uuid.UUID, _through(lambda value: value.bytes), lambda raw: uuid.UUID(bytes=_bytes(raw))),
    _Extension(11, int, _through(_int_to_bytes), _int_from_bytes),
    _record(32, SubprocessResult),
    _record(33, FuzzResult),
    _record(34, Finding, _finding),
    _record(35, OperationError, _operation_error),
)
_BY_TYPE = {extension.type: extension for extension in _EXTENSIONS}
_BY_CODE = {extension.code: extension for extension in _EXTENSIONS}


def _encode_other(depth: int, value: Any) -> Any:
    """Msgpack's hook for what it cannot carry itself."""
    if depth >= MAX_EXTENSION_DEPTH:
        raise UnsupportedValueError(
            f"a value nests tuples, sets or the like more than {MAX_EXTENSION_DEPTH} deep: return lists instead"
        )
    extension = _BY_TYPE.get(type(value))
    if extension is not None:
        return msgpack.ExtType(extension.code, extension.to_body(value, depth + 1))
    plain = _as_plain(value)
    # Msgpack asks once for each value: what became a tuple or a big integer needs its extension now.
    return plain if _is_native(plain) else _encode_other(depth, plain)


_NATIVE = frozenset({type(None), bool, float, str, bytes, bytearray, list, dict})


def _is_native(value: Any) -> bool:
    return type(value) in _NATIVE or (type(value) is int and -(1 << 63) <= value < 1 << 64)


_BASES: tuple[type[Any], ...] = (int, float, str, bytes, bytearray, tuple, list, dict, set, frozenset)
"""Builtin types whose subclasses travel as the builtin type."""


def _as_plain(value: Any) -> Any:  # noqa: PLR0911 - one return per documented kind of value
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, BaseException):
        return {"type": f"{type(value).__module__}.{type(value).__qualname__}", "message": str(value)}
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if type(value).__module__.partition(".")[0] == "numpy" and getattr(value, "shape", None) == ():
        scalar: Any = value
        return scalar.item()
    base = next((base for base in _BASES if isinstance(value, base)), None)
    if base is not None:
        return base(value)
    raise UnsupportedValueError(
        f"a value of type {type(value).__module__}.{type(value).__qualname__} cannot be sent: "
        "return plain data (numbers, text, bytes, lists, dicts, sets, dates, dataclasses) instead"
    )


def _decode_extension(depth: int, code: int, data: bytes) -> Any:
    extension = _BY_CODE.get(code)
    if extension is None:
        raise CodecError(f"unknown extension type {code}: written by another program, or by a newer fuzzfarm")
    if depth >= MAX_EXTENSION_DEPTH:
        raise CodecError(f"extensions nested more than {MAX_EXTENSION_DEPTH} deep: not written by fuzzfarm")
    return extension.from_plain(_unpack(data, depth + 1))


_ENCODERS = [partial(_encode_other, depth) for depth in range(MAX_EXTENSION_DEPTH + 1)]
_DECODERS = [partial(_decode_extension, depth) for depth in range(MAX_EXTENSION_DEPTH + 1)]


def _pack(value: Any, depth: int) -> bytes:
    # strict_types: subclasses (named tuples, IntEnum) reach the hook instead of losing their meaning silently;
    # surrogatepass: fuzzing produces lone surrogates, which strict UTF-8 cannot carry.
    packed = msgpack.packb(value, default=_ENCODERS[depth], strict_types=True, unicode_errors="surrogatepass")
    return cast("bytes", packed)


def _unpack(data: bytes, depth: int) -> Any:
    return msgpack.unpackb(data, ext_hook=_DECODERS[depth], strict_map_key=False, unicode_errors="surrogatepass")


def pack(value: Any) -> bytes:
    """Encode `value`.

    Raises:
        UnsupportedValueError: for a value that cannot travel, one that contains itself, or one nested too deeply.
    """
    try:
        return _pack(value, 0)
    except UnsupportedValueError:
        raise
    except Exception as exc:  # converting a value runs its owner's code: `__str__`, serializers, ...
        reason = str(exc) or type(exc).__name__
        raise UnsupportedValueError(
            f"a value cannot be sent ({reason}): return plain, not self-containing data"
        ) from exc


def unpack(data: bytes) -> Any:
    """Decode what `pack` made.

    Raises:
        CodecError: for bytes that `pack` cannot have made, whatever they are.
    """
    try:
        return _unpack(data, 0)
    except CodecError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, msgpack.UnpackException) as exc:
        raise CodecError(f"not a fuzzfarm value: {type(exc).__name__}: {exc}") from exc
