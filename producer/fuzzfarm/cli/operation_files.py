"""Operations in files: JSON Lines, or TOML with one [[operation]] table each. Problems name file and line."""

from __future__ import annotations

import json
import re
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from fuzzfarm.cli.failures import UsageError
from fuzzfarm_shared.errors import InvalidOperationError
from fuzzfarm_shared.operations import KINDS, AnyOperation

TABLE = "operation"
_TABLE_HEADER = re.compile(rf"^\s*\[\[\s*{TABLE}\s*\]\]", re.MULTILINE)

SPOOL_BYTES = 16 * 1024 * 1024
"""Standard input is read twice, as a file is: up to this from memory, then from disk."""


def check(path: Path) -> int:
    """Read the whole file and return how many operations it holds, so that nothing of a bad file is sent.

    Raises:
        UsageError: for the first problem, with file and line.
    """
    total = sum(1 for _ in operations(path))
    if not total:
        raise UsageError(f"{path} holds no operations: write one on each line, or one [[{TABLE}]] table each")
    return total


def operations(path: Path) -> Iterator[AnyOperation]:
    """Yield the operations of a file, lazily for JSON Lines; raises as `check`."""
    records = _toml_records(path) if path.suffix == ".toml" else _json_records(path)
    for place, record in records:
        yield _operation(place, record)


@contextmanager
def spooled(stream: BinaryIO) -> Iterator[Path]:
    """Keep a stream in a temporary file while the context is open, and give its path."""
    with tempfile.NamedTemporaryFile(prefix="stdin-", suffix=".jsonl") as copy:
        while chunk := stream.read(SPOOL_BYTES):
            copy.write(chunk)
        copy.flush()
        yield Path(copy.name)


def _json_records(path: Path) -> Iterator[tuple[str, Any]]:
    with _opened(path) as lines:
        for number, line in enumerate(lines, 1):
            place = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                yield place, json.loads(line)
            except (ValueError, RecursionError) as exc:
                raise UsageError(f"{place}: not JSON ({exc}): write one object on each line") from exc


def _toml_records(path: Path) -> Iterator[tuple[str, Any]]:
    with _opened(path) as file:
        raw = file.read()
    try:
        text = raw.decode()
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{path}: not TOML ({exc})") from exc
    found = tables.pop(TABLE, [])
    if tables or not isinstance(found, list):
        raise UsageError(f"{path}: unknown {next(iter(tables), TABLE)!r}: each operation is one [[{TABLE}]] table")
    lines = [text.count("\n", 0, match.start()) + 1 for match in _TABLE_HEADER.finditer(text)]
    for number, record in enumerate(found):
        # A multi-line string may hold something like a header; then only the number is certain.
        place = f"{path}:{lines[number]}" if len(lines) == len(found) else f"{path}: {TABLE} {number + 1}"
        yield place, record


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from exc
    with file:
        yield file


def _operation(place: str, record: Any) -> AnyOperation:
    if not isinstance(record, dict):
        raise UsageError(f"{place}: an operation is an object with kind and fields, not {type(record).__name__}")
    fields = dict(record)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(f"{place}: kind is {kind!r}: write one of {', '.join(KINDS)}")
    try:
        return KINDS[kind](**fields)
    except InvalidOperationError as exc:
        raise UsageError(f"{place}: {exc}") from exc
