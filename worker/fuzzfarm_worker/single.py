"""One worker in this process, on arq's own worker."""

from __future__ import annotations

import asyncio
import gc
import sys

from arq.worker import create_worker

from fuzzfarm_shared.connection import check_server, connect
from fuzzfarm_shared.settings import WorkerHostSettings
from fuzzfarm_worker.arq_worker import worker_settings


def run_worker(settings: WorkerHostSettings) -> int:
    """Work until a signal ends us; return the exit code.

    Raises:
        FarmUnreachableError: when the server does not answer at the start.
        SettingsError: for settings with which a worker must not start.
    """
    if sys.platform != "win32":
        import uvloop  # noqa: PLC0415 - not there on Windows

        asyncio.set_event_loop(uvloop.new_event_loop())
    worker = create_worker(worker_settings(settings))
    worker.loop.run_until_complete(_check(settings))  # arq itself would end with a traceback
    gc.freeze()  # what was imported stays: each full collection would walk through all of it
    worker.run()
    return 0


async def _check(settings: WorkerHostSettings) -> None:
    client = connect(settings)
    try:
        await check_server(client, settings)
    finally:
        await client.aclose()
