"""Log lines of a worker process: to its error output, ours from the chosen level, arq's from warnings on."""

from __future__ import annotations

import logging


def configure_logs(level: str) -> None:
    """Show our own lines from `level` on."""
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=logging.WARNING)
    for name in ("fuzzfarm_worker", "fuzzfarm_shared"):
        logging.getLogger(name).setLevel(level.upper())
