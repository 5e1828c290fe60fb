"""Plain arq with one job per operation, tuned; the peer of `farm.py`."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from arq.connections import RedisSettings


async def no_op(_: dict[str, Any], value: Any) -> Any:
    return value


class WorkerSettings:
    functions: ClassVar = [no_op]
    redis_settings = RedisSettings.from_dsn(os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379"))
    max_jobs = 100
    poll_delay = 0.01
    log_results = False
