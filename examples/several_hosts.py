"""One producer, any number of hosts.

Give every host the same two variables, then start workers on each:

export FUZZFARM_REDIS_URL=rediss://fuzzfarm:PASSWORD@farm.example:6379/0
export FUZZFARM_SIGNING_KEY=...   # the same 32 or more bytes everywhere: openssl rand -hex 32
fuzzfarm worker --processes 8 --allow-target json

and run this where you like: python examples/several_hosts.py. Run it again, and it joins the same batch.
"""

import asyncio

from fuzzfarm import CallOperation, Farm


async def main() -> None:
    """Submit a batch under a fixed key and wait for it, whoever runs it."""
    async with Farm.connect() as farm:
        for worker in await farm.workers():
            print(f"{worker.name}: {worker.max_concurrency} slots, load {worker.load}")
        batch = await farm.submit(CallOperation.many("json:dumps", range(100_000)), key="several-hosts")
        aggregate = await batch.wait(timeout_s=600)
        print(f"{aggregate.status.succeeded:,} of {aggregate.status.total:,} done")


if __name__ == "__main__":
    asyncio.run(main())
