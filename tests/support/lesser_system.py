"""A module whose import takes from its zygote what only some systems have."""

from __future__ import annotations

import contextlib
import os
import time

for name in ("waitid", "pidfd_open"):
    with contextlib.suppress(AttributeError):
        delattr(os, name)


def echo(value: int) -> int:
    return value


def end(code: int) -> None:
    os._exit(code)


def hang() -> None:
    time.sleep(1000)
