"""Calls of an executor: their options, made once for each function, and arguments as they will arrive."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

from fuzzfarm_shared.errors import PayloadTooLargeError
from fuzzfarm_shared.operations import CallOperation
from fuzzfarm_shared.values import pack, unpack

Target: TypeAlias = Callable[..., Any] | str
"""A function that workers can import, or its name, "module:function"."""

ENVELOPE_BYTES = 2_048
"""What a payload holds besides the arguments of its calls: more than the longest target name takes."""


def call_template(fn: Target, timeout_s: float | None, retries: int, retry_delay_s: float) -> CallOperation:
    """Return the call of `fn` without arguments.

    Raises:
        TargetError: for a function that cannot be imported by name.
        InvalidOperationError: for an option out of its limits.
    """
    try:
        return _remembered_template(fn, timeout_s, retries, retry_delay_s)
    except TypeError:  # a callable that cannot be hashed: most likely no target, and that gets the better message
        return _new_template(fn, timeout_s, retries, retry_delay_s)


def _new_template(fn: Target, timeout_s: float | None, retries: int, retry_delay_s: float) -> CallOperation:
    return CallOperation.many(fn, (), timeout_s=timeout_s, retries=retries, retry_delay_s=retry_delay_s).template


# An executor runs few functions many times, and finding out a function's name takes longer than all else in a submit.
_remembered_template = lru_cache(maxsize=1024)(_new_template)


def travelled(
    target: str, args: tuple[Any, ...], kwargs: dict[str, Any], limit_bytes: int
) -> tuple[list[Any], dict[str, Any] | None]:
    """Return copies of arguments as they will arrive, so that what cannot travel harms no call that is sent beside it.

    Raises:
        UnsupportedValueError: for a value that cannot travel.
        PayloadTooLargeError: for more than `limit_bytes`.
    """
    packed = pack([list(args), kwargs or None])
    size_bytes = len(packed) + ENVELOPE_BYTES
    if size_bytes > limit_bytes:
        raise PayloadTooLargeError(target, size_bytes, limit_bytes)
    copied_args, copied_kwargs = unpack(packed)
    return copied_args, copied_kwargs
