"""A module that starts a thread when it is imported, and needs it."""

from __future__ import annotations

import queue
import threading

questions: queue.Queue[tuple[int, queue.Queue[int]]] = queue.Queue()


def _serve() -> None:
    while True:
        number, answers = questions.get()
        answers.put(2 * number)


threading.Thread(target=_serve, daemon=True).start()


def double(number: int) -> int:
    answers: queue.Queue[int] = queue.Queue()
    questions.put((number, answers))
    return answers.get(timeout=10)
