"""The worker's end of a channel to a child."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing

from fuzzfarm_worker.fuzzing.frames import Channel, pack

LONG_S = 30.0
SHORT_S = 0.05


def with_channel(check: Callable[[Channel, socket.socket], Awaitable[None]]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs, closing(Channel(ours).open()) as channel:
            async with asyncio.timeout(LONG_S / 2):
                await check(channel, theirs)

    asyncio.run(main())


async def took_s(channel: Channel, timeout_s: float) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await channel.wait(timeout_s)
    return loop.time() - began


def test_a_wait_ends_with_a_message() -> None:
    async def check(channel: Channel, child: socket.socket) -> None:
        asyncio.get_running_loop().call_soon(child.sendall, pack(["ran", None]) + pack(["done"]))
        await channel.wait(LONG_S)
        assert [channel.pop(), channel.pop(), channel.pop()] == [["ran", None], ["done"], None]

    with_channel(check)


def test_a_message_that_has_come_ends_a_wait_at_once() -> None:
    async def check(channel: Channel, child: socket.socket) -> None:
        child.sendall(pack(["done"]))
        channel.drain()
        await channel.wait(LONG_S)
        assert channel.pop() == ["done"]

    with_channel(check)


def test_a_wait_ends_when_its_time_is_over() -> None:
    async def check(channel: Channel, _child: socket.socket) -> None:
        assert await took_s(channel, SHORT_S) >= SHORT_S * 0.9
        assert channel.pop() is None

    with_channel(check)


def test_a_short_wait_after_a_long_one_ends_in_time() -> None:
    async def check(channel: Channel, _child: socket.socket) -> None:
        asyncio.get_running_loop().call_soon(channel.wake)
        await channel.wait(LONG_S)
        await channel.wait(SHORT_S)

    with_channel(check)


def test_the_time_of_an_earlier_wait_does_not_end_a_later_one() -> None:
    async def check(channel: Channel, _child: socket.socket) -> None:
        asyncio.get_running_loop().call_soon(channel.wake)
        await channel.wait(SHORT_S)
        assert await took_s(channel, SHORT_S * 4) >= SHORT_S * 3.9

    with_channel(check)


def test_a_cancelled_wait_leaves_the_next_one_whole() -> None:
    async def check(channel: Channel, child: socket.socket) -> None:
        waiting = asyncio.create_task(channel.wait(LONG_S))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        asyncio.get_running_loop().call_soon(child.sendall, pack(["done"]))
        await channel.wait(LONG_S)
        assert channel.pop() == ["done"]

    with_channel(check)


def test_a_wait_ends_with_the_other_side() -> None:
    async def check(channel: Channel, child: socket.socket) -> None:
        child.sendall(pack(["done"]))
        child.close()
        channel.drain()
        assert channel.ended
        assert channel.pop() == ["done"]

    with_channel(check)


def test_what_is_no_message_ends_the_channel() -> None:
    async def check(channel: Channel, child: socket.socket) -> None:
        asyncio.get_running_loop().call_soon(child.sendall, b"\xc1")
        await channel.wait(LONG_S)
        assert channel.ended
        assert channel.pop() is None

    with_channel(check)
