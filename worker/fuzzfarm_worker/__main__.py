"""`python -m fuzzfarm_worker`: one worker, several under a supervisor, or an embedded farm.

Settings come from `FUZZFARM_*` variables; the options here are those that the supervisor needs itself.
"""

from __future__ import annotations

import argparse
import sys

from fuzzfarm_shared.errors import FuzzfarmError
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_worker.logs import configure_logs

UNUSABLE = 2
UNREACHABLE = 3


def main() -> int:
    """Run what the command line says and return the exit code."""
    arguments = _parser().parse_args()
    try:
        settings = WorkerHostSettings.load()
        configure_logs(settings.log_level)
        return _run(arguments, settings)
    except FuzzfarmError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return UNREACHABLE if isinstance(exc, ConnectionError) else UNUSABLE
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace, settings: WorkerHostSettings) -> int:
    if arguments.command == "run":
        from fuzzfarm_worker.single import run_worker  # noqa: PLC0415 - the supervisor stays small

        return run_worker(settings)
    if arguments.command == "embedded":
        from fuzzfarm_worker.embedded import run_embedded  # noqa: PLC0415 - as above

        return run_embedded(settings, arguments.workers)
    from fuzzfarm_worker.supervisor import supervise  # noqa: PLC0415 - as above

    return supervise(settings, arguments.processes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzzfarm_worker", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="one worker in this process")
    supervised = commands.add_parser("supervise", help="worker processes that are restarted when they die")
    supervised.add_argument("--processes", type=int, default=1, help="how many (default 1)")
    embedded = commands.add_parser("embedded", help="a server of its own and workers, until standard input closes")
    embedded.add_argument("--workers", type=int, default=1, help="how many (default 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
