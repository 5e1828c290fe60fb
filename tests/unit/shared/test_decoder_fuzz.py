"""Mutated payloads, outcomes, progress and envelopes: each decodes or is refused, and nothing of them runs.

20,000 mutations; a million with FUZZFARM_SOAK=1.
"""

from __future__ import annotations

import datetime as dt
import gc
import os
import random
import struct
import sys
import threading
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import msgpack
import pytest

from fuzzfarm_shared.errors import CodecError, SignatureError
from fuzzfarm_shared.operations import CallOperation, FuzzOperation, ProcessLimits, SubprocessJob
from fuzzfarm_shared.outcomes import ErrorKind, Finding, FuzzResult, OperationError, SubprocessResult
from fuzzfarm_shared.payloads import PayloadBuilder, decode_payload
from fuzzfarm_shared.progress import Progress, decode_progress, encode_progress
from fuzzfarm_shared.segments import Segment, decode_segment, encode_segment
from fuzzfarm_shared.signing import Signer
from fuzzfarm_shared.values import pack, unpack

SOAK = os.environ.get("FUZZFARM_SOAK") == "1"
SEEDS = range(20)
MUTATIONS = 50_000 if SOAK else 1_000
"""For each seed."""

WATCHED_MUTATIONS = 20_000 if SOAK else 1_000
"""The same under tracemalloc, which makes decoding several times slower."""

CONTEXT = ("operations", "batch", "submit", 3)
NOW_S = 1_000.0
KEYED = Signer((b"k" * 32,))
UNSIGNED = Signer()

ERROR = OperationError(ErrorKind.KILLED, "builtins.ValueError", "no\ud800", "Traceback", signal="SIGSEGV", worker="w-1")
FINDING = Finding(
    id="f1", target="deadly_import:f", strategy=None, kind=ErrorKind.EXCEPTION, type="ValueError", message="m",
    location="a.py:1 in f", signature="s", example="f(1)", index=7, seed=1, choices=b"\x01", traceback="t", count=2,
    first_seen=1.0, last_seen=2.0, python="3.11.7", hypothesis="6.140", replay="fuzzfarm replay f1",
)  # fmt: skip
VALUES = [
    None,
    {"a": (1, 2.5, "text", b"bytes"), ("key", 2): {1, 2, 3}, frozenset([1]): [True, False, None]},
    [2**70, -(2**70), Decimal("1.5e10"), 1 + 2j, uuid.UUID(int=7), dt.timedelta(1, 2, 3)],
    [dt.datetime(2026, 11, 30, 1, 30, fold=1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.date(2026, 1, 1), dt.time(1)],
    SubprocessResult(-11, "out", b"err", 3, 3, True, 0.5, "SIGSEGV", 10**6, 0.1),
    FuzzResult(1_000, 900, 5, 1.5, 666.0, 7, [FINDING]),
]


def payloads() -> Iterator[bytes]:
    """Bodies of operations; the module of their targets kills whoever imports it."""
    group = CallOperation.many("deadly_import:f", range(50), retries=2)
    calls, mixed = PayloadBuilder(0), PayloadBuilder(100)
    calls.add_calls(group, list(group.arguments()))
    yield calls.encode()
    mixed.add(CallOperation(key="call", target="deadly_import:C.f", args=VALUES, kwargs={"name": VALUES}))
    mixed.add(CallOperation(target="deadly_import:f", isolation="child", memory_bytes=10**9, timeout_s=None))
    mixed.add(SubprocessJob(command=["ls", "-l"], env={"A": "b"}, stdin=b"in", limits=ProcessLimits(cpu_s=3)))
    mixed.add(FuzzOperation(target="deadly_import:f", strategy="deadly_import:s", examples=1_000, seed=7))
    mixed.add(FuzzOperation(command=["cat", "@@"], inputs="regex:[a-z]+", crash_exit_codes=[3], time_s=5))
    mixed.add(FuzzOperation(target="deadly_import:f", limits=ProcessLimits(cpu_s=3, open_files=99), network=False))
    yield mixed.encode()


def outcomes() -> Iterator[bytes]:
    """Bodies of outcomes."""
    count = len(VALUES)
    column = [0.25] * count
    yield encode_segment(Segment(0, None, range(count), VALUES, {}, 1, "host-1-ab", 1.7e9, column, column))
    keys = [f"key{number}" for number in range(count)]
    errors = {0: ERROR}
    yield encode_segment(Segment(5, keys, [9, 3, 1, 7, 5, 0], VALUES, errors, 2, "host-2-cd", 1.7e9, column, column))


def originals() -> list[bytes]:
    """What is mutated: bodies, and their envelopes with a signature and without."""
    told = encode_progress([Progress("k", 1, "w", 1.5, 10, 20, "out", "err", 10**6, 0.5)])
    bodies = [*map(pack, VALUES), *payloads(), *outcomes(), told]
    return bodies + [signer.seal(body, CONTEXT, 2_000) for signer in (KEYED, UNSIGNED) for body in bodies]


ORIGINALS = originals()

PIECES = [
    *(
        bytes([head]) + b"\xff" * 4 for head in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)
    ),  # bytes, extension, text, list, dict: 4 GB
    *(bytes([head]) + b"\xff" * 2 for head in (0xC5, 0xC8, 0xDA, 0xDC, 0xDE)),  # the same of 64 KB
    *(struct.pack(">BBb", 0xC7, size, code) for size in (0, 1, 9) for code in (*range(1, 12), *range(32, 36), 99)),
    *(struct.pack(">Bd", 0xCB, number) for number in (float("nan"), float("inf"), -0.0)),
    *(struct.pack(">BQ", head, 2**64 - 1) for head in (0xCF, 0xD3)),
    b"\x91" * 1_100,
    b"\x81\xc0" * 600,
    b"\xc7\x03\x01\x91" * 40,
    b"\xa3\xed\xa0\x80",  # a lone surrogate
    b"\xc1",  # no type has this byte
    b"\x00",
    b"\xff" * 4,
]


STRANGE: list[Any] = [
    *(None, True, -1, 0, 2**32, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf")),
    *("", "0", "no such kind", "\ud800", "x" * 10_000, b"", b"\0", b"\0" * 8, b"\xff" * 400),
    *([], [1], [[], {}], {}, {1: 2}, {"\ud800": [1]}, {"target": "deadly_import:f"}),
    *(msgpack.ExtType(code, b"\x90") for code in (1, 2, 4, 7, 8, 11, 35, 99)),
    *(msgpack.ExtType(code, b"\xa5" + b"1e999") for code in (4, 5, 8, 9, 11)),
]
DEEP = msgpack.ExtType(77, b"deep")
"""Stands for what msgpack would not encode: more lists, dicts or tuples inside each other than it can hold."""

STRANGE += [DEEP] * 3


def flipped(raw: bytes, chance: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncated(raw: bytes, chance: random.Random) -> bytes:
    return raw[: chance.randrange(len(raw))]


def inserted(raw: bytes, chance: random.Random) -> bytes:
    place = chance.randint(0, len(raw))
    return raw[:place] + chance.randbytes(chance.randint(1, 9)) + raw[place:]


def overwritten(raw: bytes, chance: random.Random) -> bytes:
    """With wild lengths, types in the wrong place, deep nesting."""
    place, piece = chance.randrange(len(raw)), chance.choice(PIECES)
    return raw[:place] + piece + raw[place + chance.choice((0, 1, len(piece))) :]


def spliced(raw: bytes, chance: random.Random) -> bytes:
    other = chance.choice(ORIGINALS)
    return raw[: chance.randint(0, len(raw))] + other[chance.randrange(len(other)) :]


def repeated(raw: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(raw))
    stop = chance.randint(start, len(raw))
    return raw[:stop] + raw[start:]


def replanted(raw: bytes, chance: random.Random) -> bytes:
    """Well-formed, with something strange in one place: gets past the first look that all others fail."""
    head = 10 if raw[0] == 1 else 0
    depth = chance.choice((1, 30, 33, 300, 900, 1_020))
    deep = chance.choice((b"\x91" * depth + b"\xc0", b"\x81\xc0" * depth + b"\xc0", _tuples(depth % 50)))
    try:
        return raw[:head] + _pack(_with_one_strange(_unpack(raw[head:]), chance, deep), deep)
    except (ValueError, TypeError):  # not well-formed any more
        return flipped(raw, chance)


def _with_one_strange(tree: Any, chance: random.Random, deep: bytes) -> Any:
    if not tree or not isinstance(tree, list | dict | msgpack.ExtType) or chance.random() < 0.2:
        return chance.choice(STRANGE)
    if isinstance(tree, msgpack.ExtType):
        return msgpack.ExtType(tree.code, _pack(_with_one_strange(_unpack(tree.data), chance, deep), deep))
    place = chance.choice(list(tree)) if isinstance(tree, dict) else chance.randrange(len(tree))
    tree[place] = _with_one_strange(tree[place], chance, deep)
    return tree


def _unpack(raw: bytes) -> Any:
    return msgpack.unpackb(raw, strict_map_key=False, unicode_errors="surrogatepass")


def _pack(tree: Any, deep: bytes = b"") -> bytes:
    packed: bytes = msgpack.packb(tree, unicode_errors="surrogatepass")
    return packed.replace(b"\xd6\x4ddeep", deep)


def _tuples(depth: int) -> bytes:
    body = b"\xc0"
    for _ in range(depth):
        body = _pack(msgpack.ExtType(1, b"\x91" + body))
    return body


MUTATORS = (flipped, truncated, inserted, overwritten, spliced, repeated, replanted, replanted)


def mutated(seed: int, count: int) -> Iterator[bytes]:
    """Originals with one to three changes."""
    chance = random.Random(seed)
    for _ in range(count):
        raw = chance.choice(ORIGINALS)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            raw = chance.choice(MUTATORS)(raw or b"\x00", chance)
        yield raw


def read_payload(raw: bytes) -> None:
    payload = decode_payload(raw)
    payload.keys_of(range(len(payload)))
    assert len(list(payload.rows())) == len(payload)


def read_segment(raw: bytes) -> None:
    segment = decode_segment(raw)
    assert len(list(segment.outcomes())) == len(segment)


def open_unsigned(raw: bytes) -> None:
    body = UNSIGNED.open(raw, CONTEXT, NOW_S)
    for decoder in (read_payload, read_segment, decode_progress):
        decodes(decoder, body)
    unpack(body)


def open_signed(raw: bytes) -> None:
    """What is signed and not what was sealed must not open."""
    KEYED.open(raw, CONTEXT, NOW_S)
    assert raw in ORIGINALS


DECODERS: tuple[Callable[[bytes], Any], ...] = (
    unpack, read_payload, read_segment, decode_progress, open_unsigned, open_signed,
)  # fmt: skip


def decodes(decoder: Callable[[bytes], Any], raw: bytes) -> bool:
    """Whether it does; anything but an error of ours fails the test and shows the bytes."""
    try:
        decoder(raw)
    except (CodecError, SignatureError):
        return False
    except BaseException as exc:
        raise AssertionError(f"{decoder.__name__}(bytes.fromhex({raw.hex()!r})) raised {exc!r}") from exc
    return True


class Watch:
    """Sees every import, every start of a program, every file and socket that one thread asks for."""

    EVENTS = ("import", "exec", "compile", "open", "os.", "subprocess.", "socket.", "ctypes.", "pickle.", "marshal.")

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._thread: int | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._thread == threading.get_ident() and event.startswith(self.EVENTS):
            self.seen.append(f"{event} {arguments!r:.200}")

    @contextmanager
    def watching(self) -> Iterator[list[str]]:
        """Collect what happens in the block."""
        self.seen.clear()
        self._thread = threading.get_ident()
        try:
            yield self.seen
        finally:
            self._thread = None


WATCH = Watch()
"""For all tests: an audit hook cannot be taken away."""


def test_what_is_mutated_decodes() -> None:
    for raw in ORIGINALS:
        assert any(decodes(decoder, raw) for decoder in DECODERS)
    for decoder in DECODERS:
        assert any(decodes(decoder, raw) for raw in ORIGINALS), decoder.__name__


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mutated_message_decodes_or_is_refused_and_nothing_of_it_runs(seed: int) -> None:
    ends: Counter[bool] = Counter()
    with WATCH.watching() as seen:
        for raw in mutated(seed, MUTATIONS):
            ends.update(decodes(decoder, raw) for decoder in DECODERS)
    assert seen == []
    assert ends[True] > MUTATIONS / 20
    assert ends[False] > MUTATIONS
    assert "deadly_import" not in sys.modules


def test_an_import_is_seen_by_the_watch() -> None:
    with WATCH.watching() as seen, pytest.raises(ModuleNotFoundError):
        __import__("no_such_module_of_ours")
    assert any("no_such_module_of_ours" in event for event in seen)


def test_decoding_takes_memory_in_proportion_to_the_message_and_keeps_none() -> None:
    messages = list(mutated(len(SEEDS), WATCHED_MUTATIONS))
    for raw in messages:
        for decoder in DECODERS:
            decodes(decoder, raw)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for raw in messages:
            for decoder in DECODERS:
                tracemalloc.reset_peak()
                held, _ = tracemalloc.get_traced_memory()
                decodes(decoder, raw)
                _, peak = tracemalloc.get_traced_memory()
                assert peak - held < 500_000 + 100 * len(raw), (decoder.__name__, raw.hex())
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000
