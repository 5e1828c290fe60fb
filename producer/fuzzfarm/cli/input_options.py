"""Options that say what is generated: a word, a file with a schema, or a folder of seeds."""

from __future__ import annotations

import json
from pathlib import Path

from fuzzfarm.cli.failures import UsageError
from fuzzfarm_shared.inputs import Inputs, InputsKind


def chosen_inputs(word: str | None, schema: Path | None, seeds: str | None) -> str | None:
    """Return the word that the three options stand for, or None without any.

    Raises:
        UsageError: for more than one of them, or a schema that cannot be read.
    """
    given = [option for option in (word, schema, seeds) if option is not None]
    if len(given) > 1:
        raise UsageError("--inputs, --schema and --seeds say the same thing: give one of them")
    if schema is not None:
        return str(Inputs(InputsKind.SCHEMA, _text_of(schema)))
    if seeds is not None:
        # A folder that is not here may be on the workers: it stays as it was typed.
        return str(Inputs(InputsKind.SEEDS, str(Path(seeds).resolve()) if Path(seeds).is_dir() else seeds))
    return word


def _text_of(schema: Path) -> str:
    try:
        text = schema.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read the schema in {schema}: {getattr(exc, 'strerror', exc)}") from exc
    try:
        return json.dumps(json.loads(text), separators=(",", ":"))
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{schema} holds no JSON Schema: {exc}") from exc
