"""The child of a call: reads target and arguments from its input, writes the outcome to its output."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from typing import Any

from fuzzfarm_shared.errors import FuzzfarmError, UnsupportedValueError
from fuzzfarm_shared.outcomes import ErrorKind, OperationError
from fuzzfarm_shared.targets import check_home, import_target
from fuzzfarm_shared.values import pack, unpack
from fuzzfarm_worker.failures import operation_error


def main() -> None:
    """Run one call; what the target prints goes to the error output."""
    request = sys.stdin.buffer.read()
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(answer_fd, "wb") as answer:
        answer.write(_answer(request))


def _answer(request: bytes) -> bytes:
    try:
        name, listed, args, kwargs = unpack(request)
        target = import_target(name)
        if not listed:
            check_home(name, target)
        return pack([_result(target, args, kwargs)])
    except UnsupportedValueError as exc:
        return pack(OperationError(ErrorKind.INVALID_RESULT, "", str(exc)))
    except FuzzfarmError as exc:
        return pack(OperationError(ErrorKind.REJECTED, type(exc).__qualname__, str(exc)))
    except BaseException as exc:  # noqa: BLE001 - whatever the target raises is its outcome
        return pack(operation_error(exc, 1, ""))


def _result(target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    value = target(*args, **kwargs)
    return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value


async def _awaited(value: Any) -> Any:
    return await value


if __name__ == "__main__":
    main()
