"""Last words: what an example tells until it ends its interpreter, heard from a fork that may end in our place."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any, NoReturn

from fuzzfarm_worker.fuzzing.frames import READ_BYTES, pack, unpacker

SILENCE_S = 1.0
"""A fork that tells nothing for so long hangs."""

LIMIT_S = 4.0
"""A fork is killed after this, whatever it tells: the worker waits not much longer for an answer of its child."""

Tell = Callable[[Any], None]


def last_words(run: Callable[[Tell], None]) -> list[Any]:
    """Run something in a fork of this process and return what it told before its end; [] where none can be made.

    Args:
        run: gets the function that tells; msgpack must be able to carry what it tells.
    """
    if not hasattr(os, "fork"):
        return []
    reading, writing = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        return []
    if pid == 0:
        os.close(reading)
        _speak(writing, run)
    os.close(writing)
    try:
        return _hear(reading)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        os.waitpid(pid, 0)


def _speak(writing: int, run: Callable[[Tell], None]) -> NoReturn:
    def tell(word: Any) -> None:
        text = pack(word)
        while text:
            text = text[os.write(writing, text) :]

    try:
        run(tell)
    finally:
        os._exit(0)


def _hear(reading: int) -> list[Any]:
    words, until, frames = [], time.monotonic() + LIMIT_S, unpacker()
    while (left := until - time.monotonic()) > 0 and select.select([reading], [], [], min(SILENCE_S, left))[0]:
        received = os.read(reading, READ_BYTES)
        if not received:
            break
        frames.feed(received)
        words.extend(frames)
    return words
