"""Running examples in a child: by address, counted, without duplicates, with every failure told to the worker."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from fuzzfarm_worker.fuzzing import signature
from fuzzfarm_worker.fuzzing.apart import Apart, ApartError, ForkDiedError
from fuzzfarm_worker.fuzzing.cpu import CpuLimit
from fuzzfarm_worker.fuzzing.crashes import CommandCrashError
from fuzzfarm_worker.fuzzing.descriptors import one_more_descriptor
from fuzzfarm_worker.fuzzing.generation import Drawn, Invalid, call_source, encoded, fingerprint, size
from fuzzfarm_worker.fuzzing.last_words import Tell, last_words
from fuzzfarm_worker.fuzzing.printed import Printed
from fuzzfarm_worker.fuzzing.recorder import Cell
from fuzzfarm_worker.fuzzing.stacks import frames_of, split_report
from fuzzfarm_worker.fuzzing.subject import Subject

MAX_SEEN = 500_000
"""Fingerprints that a run remembers (about 40 MB); past it the duplicate check starts anew."""

MAX_FAILURES = 100
"""Distinct failures that one run reports in full; a target with more of them needs a repair, not more findings."""

MAX_TEXT_CHARS = 20_000
"""Longest example or traceback that is kept: enough to read, and 100 of them still fit in one result."""

MAX_MESSAGE_CHARS = 2_000

MAX_INPUT_BYTES = 65_536
"""Longest input of a command that its finding holds."""

MAX_OUTPUT_CHARS = 4_000
"""Kept of what the example of a finding has printed."""


class Sender(Protocol):
    """Takes messages for the worker."""

    def send(self, message: Any) -> None:
        """Send one message."""
        ...


@dataclass(slots=True)
class _Best:
    failure: dict[str, Any]
    rank: tuple[int, bytes]


class Examples:
    """The examples of one seed of one target."""

    def __init__(
        self, subject: Subject, seed: int, cells: memoryview[int], sender: Sender, printed: Printed | None = None
    ) -> None:
        """Prepare to run; nothing is drawn yet.

        Args:
            subject: the target.
            seed: addresses the examples together with their index.
            cells: of the flight recorder.
            sender: where failures go.
            printed: what the target prints.
        """
        self._subject = subject
        self._generator = subject.generator
        self._seed = seed
        self._cells = cells
        self._sender = sender
        self._seen: set[int] = set()
        self._interactive = subject.generator.interactive
        self._best: dict[str, _Best] = {}
        self._printed = printed or Printed()
        self._apart: Apart | None = None
        self._cpu_limit: CpuLimit | None = None

    def limit_cpu(self, cpu_s: int) -> None:
        """Hold each example to so many CPU seconds, from now on."""
        self._cpu_limit = CpuLimit(cpu_s)
        self._subject.limit_cpu(self._cpu_limit)

    def stay_apart(self, *, outlive: bool = False) -> None:
        """Make each call in a fork, from now on, and outlive those that die if told to; call `limit_cpu` first."""
        self._apart = Apart(self._cells, self._generator.rejections, self._cpu_limit, outlive=outlive)

    def recall(self, failures: Iterable[dict[str, Any]]) -> None:
        """Know failures that a child before this one has told: their id, signature and choices."""
        for failure in failures:
            choices = failure["choices"]
            self._best[failure["signature"]] = _Best(failure, (len(choices), choices))

    def run(self, start: int, stop: int, *, skip: Iterable[int]) -> None:
        """Run examples `start` to `stop`, or until the recorder says stop.

        Args:
            start: the first index.
            stop: the index after the last one.
            skip: fingerprints of examples not to run again, because they kill.
        """
        self._seen.update(skip)
        cells, printed = self._cells, self._printed
        with self._generator.session():
            for index in range(start, stop):
                now = time.monotonic_ns()
                deadline = cells[Cell.DEADLINE]
                if cells[Cell.STOP] or (deadline and now >= deadline):
                    break
                cells[Cell.PRINTED] = printed.begin()
                cells[Cell.STARTED] = now
                cells[Cell.INDEX] = index
                self._run_one(index)
                cells[Cell.NEXT] = index + 1
        cells[Cell.STARTED] = 0

    def _begin_cpu(self) -> None:
        if self._cpu_limit is not None:
            self._cpu_limit.begin()

    def _run_one(self, index: int) -> None:
        self._begin_cpu()
        data, call = self._addressed(index, self._count_and_call)
        try:
            self._generator.run(data, call, draw=index >= len(self._subject.explicit))
        except Invalid:
            self._cells[Cell.INVALID] += 1
        except BaseException as exc:  # noqa: BLE001  # whatever a target raises is a failure, SystemExit too
            self._record(exc, data, index)

    def _addressed(self, index: int, call: Callable[[Drawn], None]) -> tuple[Any, Callable[[Drawn], None]]:
        explicit = self._subject.explicit
        if index >= len(explicit):
            return self._generator.at(self._seed, index), call
        self._cells[Cell.DISTINCT] += 1
        return self._generator.stored(b""), lambda _drawn: self._subject.call_explicit(explicit[index])

    def _count_and_call(self, drawn: Drawn) -> None:
        is_new = self._note(drawn)
        if not is_new and not self._interactive:
            return
        self._cells[Cell.DISTINCT] += 1
        before = size(drawn.data)
        try:
            self._call(drawn)
        finally:
            if size(drawn.data) != before:  # it draws while it runs, so its arguments do not tell its examples apart
                self._interactive = True
                is_new = self._note(drawn)
            if not is_new:
                self._cells[Cell.DISTINCT] -= 1

    def _call(self, drawn: Drawn) -> None:
        if self._apart is None:
            self._subject.call_drawn(drawn)
        elif self._apart.call(
            lambda: self._subject.call_drawn(drawn),
            lambda exc: self.failure(exc, _mark(exc), encoded(drawn.data), None),
        ):
            raise Invalid

    def _note(self, drawn: Drawn) -> bool:
        """Remember what is drawn by now, and return whether it was not seen before."""
        mark = fingerprint(drawn.data)
        if mark in self._seen:
            return False
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen.add(mark)
        return True

    def _record(self, exc: BaseException, data: Any, index: int) -> None:
        self._cells[Cell.STARTED] = time.monotonic_ns()  # telling it has its own time
        self._begin_cpu()
        if isinstance(exc, MemoryError):
            traceback.clear_frames(exc.__traceback__)  # what filled the memory, or the report fails too
        mark = _mark(exc)
        choices = encoded(data)
        rank = (len(choices), choices)
        best = self._best.get(mark)
        if best is not None and best.rank <= rank:
            self._sender.send(["again", best.failure["id"]])
        elif best is not None or len(self._best) < MAX_FAILURES:
            failure = self.failure(exc, mark, choices, index)
            self._best[mark] = _Best(failure, rank)
            self._sender.send(["failure", failure, 1])

    def failure(self, exc: BaseException, mark: str, choices: bytes, index: int | None) -> dict[str, Any]:
        """Return what the worker makes a finding of."""
        if isinstance(exc, ApartError):
            return {**exc.failure, "index": index}  # with the choices of what was drawn in the fork, too
        told = {
            "id": signature.finding_id(self._subject.target, mark),
            "kind": "memory" if isinstance(exc, MemoryError) else "exception",
            "type": signature.type_name(exc),
            "message": clean(_message(exc), MAX_MESSAGE_CHARS),
            "location": signature.location(signature.walk(exc.__traceback__)),
            "signature": mark,
            "example": self.source(choices, index),
            "index": index,
            "choices": choices,
            "traceback": clean(signature.formatted(exc), MAX_TEXT_CHARS),
            "output": clean(self._printed.taken(), MAX_OUTPUT_CHARS),
        }
        return told | _crash(exc) if isinstance(exc, CommandCrashError) else told

    def source(self, choices: bytes, index: int | None) -> str:
        """Return the call of an example as Python source, with what it draws while it runs as comments."""
        explicit = self._subject.explicit
        if index is not None and index < len(explicit):
            return clean(call_source(self._subject.name, *self._subject.bind(explicit[index].kwargs)), MAX_TEXT_CHARS)
        lines: list[str] = []
        if self._interactive:
            self._generator.report(self._generator.stored(choices), self._subject.call_drawn, lines.append)
        return self._shown(self._generator.stored(choices), lines)

    def _shown(self, data: Any, lines: list[str]) -> str:
        """Return an example as Python source: the steps that a state machine told, or a call, and what it told."""
        name = self._subject.name
        if self._subject.machine is not None:
            return clean("\n".join(lines or [f"state = {self._subject.machine.__name__}()"]), MAX_TEXT_CHARS)
        try:
            text = self._generator.source(data, name, self._subject.bind)
        except BaseException as exc:  # noqa: BLE001  # generating it is what fails
            return f"{name}(...)  # its generation raises {type(exc).__name__}"
        return clean("\n".join([text, *(f"# {line}" for line in lines)]), MAX_TEXT_CHARS)

    def describe(self, index: int | None, choices: bytes) -> dict[str, Any]:
        """Generate an example, by its address where it has one, without running it, and return what tells it."""
        if index is not None and index < len(self._subject.explicit):
            return {"example": self.source(b"", index), "choices": b"", "fingerprint": None}
        self._begin_cpu()
        drawn: list[Drawn] = []
        data = self._data(index, choices)
        try:
            self._generator.run(data, drawn.append)
        except BaseException as exc:  # noqa: BLE001  # code of the user inside a strategy
            source = f"{self._subject.name}(...)  # its generation raises {type(exc).__name__}"
            return {"example": source, "choices": encoded(data), "fingerprint": None}
        if self._subject.generator.interactive:
            return self._last_words(index, choices)
        choices = encoded(data)
        told = {"example": self.source(choices, None), "choices": choices, "fingerprint": fingerprint(data)}
        given = [self._subject.given(one.arguments) for one in drawn]
        return told if None in given else {**told, "input": _bounded(b"".join(filter(None, given)))}

    def _data(self, index: int | None, choices: bytes) -> Any:
        """Return an undrawn example, which is none of the test's own."""
        return self._generator.stored(choices) if index is None else self._generator.at(self._seed, index)

    def _last_words(self, index: int | None, choices: bytes) -> dict[str, Any]:
        """Return what tells an example that draws while it runs and ends its interpreter: it has to run once more."""
        lines: list[str] = []
        told, announced = b"", ""
        for text, told, is_announcement in last_words(lambda tell: self._confess(index, choices, tell)):  # noqa: B007
            announced = text if is_announcement else ""
            lines += [] if is_announcement else [text]
        shown = self._shown(self._data(index, choices), [*lines, *filter(None, [announced])])
        return {"example": shown, "choices": told, "fingerprint": None}

    def _confess(self, index: int | None, choices: bytes, tell: Tell) -> None:
        data = self._data(index, choices)
        self._subject.announce_steps(lambda step: tell([step, encoded(data), True]))
        self._generator.report(data, self._subject.call_drawn, lambda line: tell([line, encoded(data), False]))

    def once(self, index: int | None, choices: bytes) -> dict[str, Any] | None:
        """Run one example, by its address where it has one, and return its failure, or None when it passes."""
        self._cells[Cell.PRINTED] = self._printed.begin()
        self._begin_cpu()
        target = self._call
        data, call = (self._generator.stored(choices), target) if index is None else self._addressed(index, target)
        try:
            with self._generator.session():
                self._generator.run(data, call, draw=index is None or index >= len(self._subject.explicit))
        except Invalid:
            return None
        except BaseException as exc:  # noqa: BLE001  # whatever a target raises is a failure, SystemExit too
            self._begin_cpu()
            return self.failure(exc, _mark(exc), encoded(data), index)
        return None

    def shrink(self, choices: bytes, mark: str, budget_s: float) -> None:
        """Look for smaller examples that fail in the same way, and tell each one that is found.

        Args:
            choices: of the failing example.
            mark: its signature.
            budget_s: seconds for all of it; one run may overstep it.
        """
        with self._generator.session():
            self._generator.shrink(
                choices,
                self._call,
                lambda exc: self._mark_in_fork(exc) == mark,
                proceed=self._proceed,
                found=lambda smaller: self._sender.send(["smaller", smaller]),
                budget_s=budget_s,
            )
        self._cells[Cell.STARTED] = 0

    def _mark_in_fork(self, exc: BaseException) -> str:
        """Return the signature of a failure, which may be the death of a fork."""
        if not isinstance(exc, ForkDiedError):
            return _mark(exc)
        _, report = split_report(self._printed.taken())
        return signature.of_stack(str(exc), frames_of(report))

    def _proceed(self) -> bool:
        self._cells[Cell.PRINTED] = self._printed.begin()
        self._cells[Cell.STARTED] = time.monotonic_ns()
        self._begin_cpu()
        return not self._cells[Cell.STOP]


def _mark(exc: BaseException) -> str:
    """Return the signature of a failure."""
    if isinstance(exc, ApartError):
        return str(exc.failure["signature"])
    with one_more_descriptor():  # it reads source files, and the target may have taken all there are
        return clean(signature.of_exception(exc), MAX_TEXT_CHARS)


def _crash(exc: CommandCrashError) -> dict[str, Any]:
    """Return what is told of a crash in another way than of an exception."""
    crash = exc.crash
    return {
        "kind": crash.kind,
        "type": crash.type,
        "location": clean(crash.location, MAX_MESSAGE_CHARS),
        "traceback": clean(crash.report, MAX_TEXT_CHARS),
        "input": _bounded(exc.input),
    }


def _bounded(given: bytes) -> bytes | None:
    return given if len(given) <= MAX_INPUT_BYTES else None


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as broken:  # noqa: BLE001  # code of the user
        return f"<str() of it raised {type(broken).__name__}>"


def clean(text: str, limit: int) -> str:
    """Return text that UTF-8 can carry, of at most about `limit` characters, its middle cut out where longer."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}\n... {len(text) - limit:,} characters left out ...\n{text[-limit // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
