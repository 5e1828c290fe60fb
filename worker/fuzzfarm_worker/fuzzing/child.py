"""The fuzzing child: a fork of a zygote that has the target, runs examples of it, and tells the worker about them.

`prepare` runs once, in the zygote; `serve` in each child, which is held to its limits by then. What the child prints,
and what faulthandler writes when it dies, goes into a file that the worker reads.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import socket
import traceback
from typing import TYPE_CHECKING, Any

from fuzzfarm_shared.targets import import_module_of
from fuzzfarm_worker.fuzzing.apart import DUMP_SIGNAL
from fuzzfarm_worker.fuzzing.frames import BlockingChannel
from fuzzfarm_worker.fuzzing.printed import Printed
from fuzzfarm_worker.fuzzing.recorder import Recorder
from fuzzfarm_worker.fuzzing.suite import enter_suite_of

if TYPE_CHECKING:
    from fuzzfarm_worker.fuzzing.examples import Examples
    from fuzzfarm_worker.fuzzing.subject import Subject
    from fuzzfarm_worker.sandbox.cells import Cells

PREPARE = "fuzzfarm_worker.fuzzing.child:prepare"
SERVE = "fuzzfarm_worker.fuzzing.child:serve"

STDOUT = 1
"""The descriptor of the file to which both streams of the child go."""


def prepare(options: dict[str, Any]) -> Subject | None:
    """Import a module, or load a target, in the zygote, so that its children have it.

    Args:
        options: `module`, a target whose module is imported; or `target`, `strategy` (or None), and `own`: those of
            these names that must be defined in the module that they name.

    Raises:
        TargetError: when it cannot be fuzzed.
    """
    # Hypothesis, and what runs the examples, which each child would have to load again.
    from fuzzfarm_worker.fuzzing import examples, generation, subject  # noqa: F401, PLC0415

    generation.pin_constants()
    module = options.get("module")
    enter_suite_of(module or options["target"])
    if module is not None:
        import_module_of(module)
        return None
    for name in options["own"]:
        subject.check_own(name)
    return subject.load(options["target"], options["strategy"])


def serve(connection: socket.socket, cells: Cells, subject: Subject) -> None:
    """Serve the worker until it is gone."""
    if DUMP_SIGNAL is not None:
        faulthandler.register(DUMP_SIGNAL, file=2, all_threads=False)
    channel = BlockingChannel(connection)
    try:
        Child(channel, Recorder(cells), subject).serve()
    except OSError:
        os._exit(1)  # the worker is gone: nobody is left to tell
    except Exception:  # noqa: BLE001  # a defect of ours, told to the worker, which raises it
        channel.send(["broken", traceback.format_exc()])


class Child:
    """Answers the requests of the worker, one after another."""

    def __init__(
        self, channel: BlockingChannel, recorder: Recorder, subject: Subject, output: int | None = STDOUT
    ) -> None:
        """Take over what a fork was given, and where its output goes; None: what it prints is not kept."""
        self._channel = channel
        self._recorder = recorder
        self._subject = subject
        self._output = output

    def serve(self) -> None:
        """Answer until the worker is gone."""
        from fuzzfarm_worker.fuzzing.generation import hypothesis_version  # noqa: PLC0415 - loaded by `prepare`

        self._channel.send(["ready", platform.python_version(), hypothesis_version])
        while (request := self._channel.receive()) is not None:
            self._channel.send(getattr(self, f"answer_{request['op']}")(request))

    def answer_run(self, request: dict[str, Any]) -> list[Any]:
        """Run a range of examples."""
        examples = self._examples(request)
        examples.recall(request["known"])
        examples.run(request["start"], request["stop"], skip=request["skip"])
        return ["done"]

    def answer_shrink(self, request: dict[str, Any]) -> list[Any]:
        """Make a failing example smaller."""
        examples = self._examples(request)
        # What a target draws while it runs stays in the fork that runs it, so there is nothing to make smaller here.
        in_forks = request["apart"] and not self._subject.generator.interactive
        if in_forks:
            examples.stay_apart(outlive=True)
        if in_forks or not request["kills"]:
            examples.shrink(request["choices"], request["signature"], request["budget_s"])
        return ["done"]

    def answer_describe(self, request: dict[str, Any]) -> list[Any]:
        """Tell what an example is, without running it."""
        return ["described", self._examples(request).describe(request["index"], request["choices"])]

    def answer_once(self, request: dict[str, Any]) -> list[Any]:
        """Run one example."""
        return ["ran", self._examples(request).once(request["index"], request["choices"])]

    def _examples(self, request: dict[str, Any]) -> Examples:
        from fuzzfarm_worker.fuzzing.examples import Examples  # noqa: PLC0415 - loaded by `prepare`

        cells = self._recorder.cells
        examples = Examples(self._subject, request["seed"], cells, self._channel, Printed(self._output))
        if request["cpu_s"] is not None:
            examples.limit_cpu(request["cpu_s"])
        if request.get("stateless"):
            examples.stay_apart()
        return examples
