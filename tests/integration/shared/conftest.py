"""Property tests of this folder use the project's profile; each test drives a batch of its own by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import property_profile  # noqa: F401
import pytest
from store_harness import StoreHarness

from fuzzfarm_shared.settings import ProducerSettings

Drive = Callable[[Callable[[StoreHarness], Awaitable[None]]], None]


@pytest.fixture
def drive(producer_settings: ProducerSettings) -> Drive:
    """Run `async def steps(store)` against a batch whose key is the test's namespace."""

    def run(steps: Callable[[StoreHarness], Awaitable[None]]) -> None:
        async def main() -> None:
            store = StoreHarness(producer_settings, producer_settings.namespace)
            try:
                await steps(store)
            finally:
                await store.close()

        asyncio.run(main())

    return run
