"""What commands have going on in the background."""

from __future__ import annotations

import asyncio

import pytest

from fuzzfarm.cli.options import in_background


async def answer() -> int:
    return 42


async def fail() -> int:
    raise ValueError("no")


def test_what_goes_on_in_the_background_gives_its_result_to_whoever_awaits_it() -> None:
    async def main() -> int:
        async with in_background(answer()) as task:
            return await task

    assert asyncio.run(main()) == 42


def test_it_ends_with_its_context() -> None:
    async def main() -> asyncio.Task[None]:
        async with in_background(asyncio.sleep(600)) as task:
            await asyncio.sleep(0)
        return task

    assert asyncio.run(main()).cancelled()


def test_its_error_is_raised_where_it_is_awaited_and_nowhere_else() -> None:
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with in_background(fail()):
            await asyncio.sleep(0)
        with pytest.raises(ValueError, match="no"):
            async with in_background(fail()) as task:
                await task

    asyncio.run(main())
    assert complaints == []
