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
from typing import Any

import msgpack
from pydantic import BaseModel

from fuzzfarm_shared.errors import CodecError, UnsupportedValueError
from fuzzfarm_shared.outcomes import ErrorKind, Finding, FuzzResult, OperationError, SubprocessResult

MAX_BIG_INT_BYTES = 1 << 20
"""Largest integer that travels (8 million bits): decoding more would cost the reader quadratic time to print."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Extension:
    """How one type travels: as an ext code around plain data."""

    code: int
    type: type
    to_plain: Callable[[Any], Any]
    from_plain: Callable[[Any], Any]


def _record(code: int, cls: type, build: Callable[..., Any] | None = None) -> _Extension:
    names = [field.name for field in dataclasses.fields(cls)]
    make = build or cls
    return _Extension(code, cls, lambda record: [getattr(record, name) for name in names], lambda row: make(*row))


def _sorted_members(members: Any) -> list[Any]:
    return sorted(members, key=pack)


def _int_to_bytes(number: int) -> bytes:
    size = number.bit_length() // 8 + 1
    if size > MAX_BIG_INT_BYTES:
        raise UnsupportedValueError(f"an integer of {size:,} bytes is too large to send: write it to a file instead")
    return number.to_bytes(size, "big", signed=True)


def _operation_error(kind: str, *rest: Any) -> OperationError:
    return OperationError(ErrorKind(kind), *rest)


def _finding(*row: Any) -> Finding:
    finding = Finding(*row)
    return dataclasses.replace(finding, kind=ErrorKind(finding.kind))


_EXTENSIONS = (
    _Extension(1, tuple, list, tuple),
    _Extension(2, set, _sorted_members, set),
    _Extension(3, frozenset, _sorted_members, frozenset),
    _Extension(4, dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    _Extension(5, dt.date, dt.date.isoformat, dt.date.fromisoformat),
    _Extension(6, dt.time, dt.time.isoformat, dt.time.fromisoformat),
    _Extension(7, dt.timedelta, lambda d: [d.days, d.seconds, d.microseconds], lambda row: dt.timedelta(*row)),
    _Extension(8, Decimal, str, Decimal),
    _Extension(9, complex, lambda number: [number.real, number.imag], lambda row: complex(*row)),
    _Extension(10, uuid.UUID, lambda value: value.bytes, lambda raw: uuid.UUID(bytes=raw)),
    _Extension(11, int, _int_to_bytes, lambda raw: int.from_bytes(raw, "big", signed=True)),
    _record(32, SubprocessResult),
    _record(33, FuzzResult),
    _record(34, Finding, _finding),
    _record(35, OperationError, _operation_error),
)
_BY_TYPE = {extension.type: extension for extension in _EXTENSIONS}
_BY_CODE = {extension.code: extension for extension in _EXTENSIONS}


def _encode_other(value: Any) -> Any:
    """Msgpack's hook for what it cannot carry itself."""
    extension = _BY_TYPE.get(type(value))
    if extension is not None:
        return msgpack.ExtType(extension.code, _pack(extension.to_plain(value)))
    return _as_plain(value)


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


def _decode_extension(code: int, data: bytes) -> Any:
    extension = _BY_CODE.get(code)
    if extension is None:
        raise CodecError(f"unknown extension type {code}: written by another program, or by a newer fuzzfarm")
    return extension.from_plain(_unpack(data))


def _pack(value: Any) -> bytes:
    # strict_types: subclasses (named tuples, IntEnum) reach the hook instead of losing their meaning silently;
    # surrogatepass: fuzzing produces lone surrogates, which strict UTF-8 cannot carry.
    packer = msgpack.Packer(default=_encode_other, strict_types=True, unicode_errors="surrogatepass")
    packed: bytes = packer.pack(value)
    return packed


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, ext_hook=_decode_extension, strict_map_key=False, unicode_errors="surrogatepass")


def pack(value: Any) -> bytes:
    """Encode `value`.

    Raises:
        UnsupportedValueError: for a value that cannot travel, one that contains itself, or one nested too deeply.
    """
    try:
        return _pack(value)
    except UnsupportedValueError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise UnsupportedValueError(f"a value cannot be sent ({exc}): return plain, not self-containing data") from exc


def unpack(data: bytes) -> Any:
    """Decode what `pack` made.

    Raises:
        CodecError: for bytes that `pack` cannot have made, whatever they are.
    """
    try:
        return _unpack(data)
    except CodecError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, msgpack.UnpackException) as exc:
        raise CodecError(f"not a fuzzfarm value: {type(exc).__name__}: {exc}") from exc
