from __future__ import annotations

import collections
import contextlib
import enum
import pathlib
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, model_serializer
from travelling import mutations, same, values

from fuzzfarm_shared.errors import CodecError, UnsupportedValueError
from fuzzfarm_shared.values import MAX_BIG_INT_BYTES, MAX_EXTENSION_DEPTH, pack, unpack


class Colour(enum.Enum):
    RED = (255, 0, 0)
    WIDE = 2**80


class Level(enum.IntEnum):
    LOW = 1


class Tags(set[str]):
    pass


class Name(str):
    __slots__ = ()


Point = collections.namedtuple("Point", "x y")


@dataclass
class Box:
    inner: Any
    late: int = field(init=False)


class Model(BaseModel):
    tags: set[int]


class BrokenModel(BaseModel):
    @model_serializer
    def fail(self) -> Any:
        raise AttributeError("gone")


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def nested(wrap: Any, depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = wrap(value)
    return value


@given(values)
def test_a_value_of_a_documented_type_arrives_as_it_was(value: Any) -> None:
    assert same(unpack(pack(value)), value)


@given(st.frozensets(st.integers() | st.text()))
def test_equal_sets_have_equal_bytes(members: frozenset[Any]) -> None:
    assert pack(members) == pack(frozenset(reversed(list(members))))


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Point(1, (2,)), (1, (2,))),
        (Colour.RED, (255, 0, 0)),
        (Colour.WIDE, 2**80),
        (Level.LOW, 1),
        (Tags({"a"}), {"a"}),
        (Name("n"), "n"),
        (collections.OrderedDict(a=(1,)), {"a": (1,)}),
        (Model(tags={1}), {"tags": {1}}),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (bytearray(b"x"), b"x"),
        (ValueError("no"), {"type": "builtins.ValueError", "message": "no"}),
        ([Point(Point(1, 2), Colour.RED)], [((1, 2), (255, 0, 0))]),
    ],
)
def test_what_is_more_than_plain_data_arrives_as_plain_data(value: Any, arrives: Any) -> None:
    assert same(unpack(pack(value)), arrives)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda: 0,
        Box,
        sys,
        [1, {"a": object()}],
        Box(1),
        BrokenModel(),
        SilentError(),
        1 << (8 * MAX_BIG_INT_BYTES),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_travel_says_so(value: Any) -> None:
    with pytest.raises(UnsupportedValueError, match=r"cannot be sent|too large"):
        pack(value)


def test_a_value_that_contains_itself_says_so() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnsupportedValueError):
        pack(endless)


WRAPS = {
    "list": lambda value: [value],
    "dict": lambda value: {"a": value},
    "tuple": lambda value: (value,),
    "frozenset": lambda value: frozenset([value]),
    "point": lambda value: Point(value, 0),
    "box": lambda value: [Box(value)],
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_value_nested_too_deeply_says_so(wrap: str) -> None:
    with pytest.raises(UnsupportedValueError):
        pack(nested(WRAPS[wrap], 5_000))


@pytest.mark.parametrize("wrap", ["list", "dict", "tuple", "frozenset", "point"])
def test_whatever_depth_can_be_packed_can_be_unpacked(wrap: str) -> None:
    """In a process of its own: a decoder that runs out of C stack ends its interpreter."""
    program = f"""
import test_values
from fuzzfarm_shared.errors import UnsupportedValueError
from fuzzfarm_shared.values import pack, unpack
depth = 0
while depth < 2000:
    try:
        raw = pack(test_values.nested(test_values.WRAPS[{wrap!r}], depth + 1))
    except UnsupportedValueError:
        break
    unpack(raw)
    depth += 1
print(depth)
"""
    folder = pathlib.Path(__file__).parent
    paths = [str(folder), str(folder.parents[1] / "support")]
    script = f"import sys; sys.path[:0] = {paths}\n{program}"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    assert done.returncode == 0
    assert int(done.stdout) >= MAX_EXTENSION_DEPTH


def test_nested_sets_take_time_in_proportion_to_their_depth() -> None:
    started = time.process_time()
    pack(nested(WRAPS["frozenset"], MAX_EXTENSION_DEPTH))
    assert time.process_time() - started < 5.0  # without care it takes 2**32 steps


def test_extensions_nested_deeper_than_we_write_are_refused() -> None:
    raw = b"\xc0"
    for _ in range(5_000):
        raw = msgpack.packb(msgpack.ExtType(1, b"\x91" + raw))
    with pytest.raises(CodecError, match="deep"):
        unpack(raw)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_or_raise_a_codec_error(raw: bytes) -> None:
    only_codec_errors(raw)


@given(st.integers(-128, 127), st.binary(max_size=40) | values.map(pack))
def test_extensions_with_any_body_decode_or_raise_a_codec_error(code: int, body: bytes) -> None:
    only_codec_errors(b"\xc9" + struct.pack(">Ib", len(body), code) + body)


@given(mutations(values.map(pack)))
def test_damaged_values_decode_or_raise_a_codec_error(raw: bytes) -> None:
    only_codec_errors(raw)


def only_codec_errors(raw: bytes) -> None:
    with contextlib.suppress(CodecError):
        unpack(raw)


@pytest.mark.parametrize(
    ("code", "body", "message"),
    [
        (99, b"\xc0", "unknown extension type 99"),
        (10, msgpack.packb([0] * 16), "bytes"),
        (11, msgpack.packb(b"\x01" * (MAX_BIG_INT_BYTES + 1)), "not written by fuzzfarm"),
        (35, msgpack.packb(["no such kind", "", ""]), "ErrorKind"),
        (2, msgpack.packb([[]]), "unhashable"),
    ],
)
def test_an_extension_that_we_do_not_write_is_refused(code: int, body: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        unpack(msgpack.packb(msgpack.ExtType(code, body)))
