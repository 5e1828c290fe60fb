"""A module that starts a program when it is imported, as those of servers and browsers do."""

from __future__ import annotations

import os
import subprocess

HELPER = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def helper() -> int:
    os.kill(HELPER.pid, 0)
    return HELPER.pid


def end() -> None:
    os._exit(1)
