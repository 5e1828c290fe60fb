"""The child interpreter: runs examples of one target and tells the worker about them.

`python -m fuzzfarm_worker.fuzzing.child`. Its standard input is a socket, over which it first gets the descriptors of
its flight recorder and of the file for crash reports. It limits itself before the target is imported.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Any

from fuzzfarm_shared.errors import TargetError
from fuzzfarm_worker.fuzzing.frames import BlockingChannel
from fuzzfarm_worker.fuzzing.limits import limit_resources, take_standard_input
from fuzzfarm_worker.fuzzing.recorder import Recorder

if TYPE_CHECKING:
    from fuzzfarm_worker.fuzzing.examples import Examples
    from fuzzfarm_worker.fuzzing.subject import Subject

DUMP_SIGNAL = getattr(signal, "SIGUSR1", None)
"""Writes the Python stack to CRASHES, also while C code runs; None where the system has no such signal."""


class Child:
    """Answers the requests of the worker, one after another."""

    def __init__(self, channel: BlockingChannel, recorder: Recorder) -> None:
        """Take over the two ends that were inherited."""
        self._channel = channel
        self._recorder = recorder
        self._subject: Subject | None = None

    def serve(self) -> None:
        """Answer until the worker is gone."""
        while (request := self._channel.receive()) is not None:
            self._channel.send(getattr(self, f"answer_{request['op']}")(request))

    def answer_load(self, request: dict[str, Any]) -> list[Any]:
        """Limit this process and import the target."""
        sys.path[:] = request["path"]
        limit_resources(request["memory_bytes"])
        from fuzzfarm_worker.fuzzing import generation, subject  # noqa: PLC0415  # inside the limits

        try:
            for name in request["own"]:
                subject.check_own(name)
            self._subject = subject.load(request["target"], request["strategy"])
        except TargetError as exc:
            return ["unusable", exc.target, " ".join(str(exc).split())]
        generation.pin_constants()
        return ["ready", platform.python_version(), generation.hypothesis_version]

    def answer_run(self, request: dict[str, Any]) -> list[Any]:
        """Run a range of examples."""
        examples = self._examples(request)
        examples.recall(request["known"])
        examples.run(request["start"], request["stop"], skip=request["skip"], shrunk=request["shrunk"])
        return ["done"]

    def answer_describe(self, request: dict[str, Any]) -> list[Any]:
        """Tell what an example is, without running it."""
        return ["described", self._examples(request).describe(request["index"])]

    def answer_once(self, request: dict[str, Any]) -> list[Any]:
        """Run one example."""
        return ["ran", self._examples(request).once(request["index"], request["choices"])]

    def _examples(self, request: dict[str, Any]) -> Examples:
        from fuzzfarm_worker.fuzzing.examples import Examples  # noqa: PLC0415  # inside the limits

        assert self._subject is not None, "load comes first"  # noqa: S101
        return Examples(self._subject, request["seed"], self._recorder.cells, self._channel)


def main() -> None:
    """Serve the worker that started this process."""
    connection = socket.socket(fileno=take_standard_input())
    _, (memory, crashes), _, _ = socket.recv_fds(connection, 1, 2)
    faulthandler.enable(file=crashes, all_threads=False)
    if DUMP_SIGNAL is not None:
        faulthandler.register(DUMP_SIGNAL, file=crashes, all_threads=False)
    channel = BlockingChannel(connection)
    try:
        Child(channel, Recorder(memory)).serve()
    except OSError:
        os._exit(1)  # the worker is gone: nobody is left to tell
    except Exception:  # noqa: BLE001  # a defect of ours, told to the worker, which raises it
        channel.send(["broken", traceback.format_exc()])
    os._exit(0)  # threads and exit handlers of a target must not hold it up


if __name__ == "__main__":
    main()
