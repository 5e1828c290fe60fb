"""The line in which suspects wait for each other."""

from __future__ import annotations

import asyncio

import pytest

from fuzzfarm_worker.chunks.suspicion import Line


def test_a_line_is_busy_from_the_first_who_wants_it_to_the_last_who_leaves() -> None:
    async def main() -> None:
        line, order = Line(), []

        async def stand(name: str) -> None:
            async with line:
                order.append(name)
                await asyncio.sleep(0)
                assert line.busy

        assert not line.busy
        await asyncio.gather(*map(stand, "abc"))
        assert order == ["a", "b", "c"]
        assert not line.busy

    asyncio.run(main())


def test_whoever_gives_up_waiting_is_not_in_the_line_any_more() -> None:
    async def main() -> None:
        line = Line()

        async def stand() -> None:
            async with line:
                pytest.fail("nobody left it")

        async with line:
            waiting = asyncio.create_task(stand())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert not line.busy
        async with asyncio.timeout(1.0), line:
            pass

    asyncio.run(main())
