"""Call a function many times on a farm of two workers, and get the results by key.

python examples/calls.py
"""

import asyncio

from fuzzfarm import CallOperation, Farm


async def main() -> None:
    """Submit calls and print what comes back."""
    async with Farm.embedded(workers=2) as farm:
        roots = await farm.submit(CallOperation.many("math:sqrt", range(10_000)))
        named = await farm.submit(
            [
                CallOperation(key="good", target="json:loads", args=['{"a": 1}']),
                CallOperation(key="bad", target="json:loads", args=["{"]),
            ]
        )
        aggregate = await roots.wait()
        print(len(aggregate.results), "roots; that of 144 is", aggregate.results["144"])
        async for outcome in named.stream():
            print(outcome.key, outcome.value if outcome.ok else outcome.error)


if __name__ == "__main__":
    asyncio.run(main())
