"""One worker for all tests that only need some worker: starting one takes longer than most of them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).parent.parent / "support"
STOP_TIMEOUT_S = 20.0


@pytest.fixture(scope="session")
def shared_farm(server_url: str) -> Iterator[dict[str, Any]]:
    """What `Farm.connect(**shared_farm)` needs for a farm with one worker; batch keys of a test are its own."""
    namespace = f"shared{secrets.token_hex(4)}"
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzzfarm_worker", "run"],
        env={
            **os.environ,
            "FUZZFARM_REDIS_URL": server_url,
            "FUZZFARM_NAMESPACE": namespace,
            "FUZZFARM_MAX_PAYLOAD_BYTES": "1000000",
            "PYTHONPATH": str(SUPPORT),
        },
        stdin=subprocess.DEVNULL,
    )
    yield {"url": server_url, "namespace": namespace, "max_payload_bytes": 1_000_000}
    process.terminate()
    process.wait(STOP_TIMEOUT_S)


@pytest.fixture
def batch_key() -> str:
    """A batch key that no other test has."""
    return f"batch-of-a-test-{secrets.token_hex(6)}"
