"""Follow jobs while they run: what each has written so far, and its newest line.

python examples/progress.py
"""

import asyncio

from fuzzfarm import Farm, Progress, SubprocessJob

SCRIPT = "for part in 1 2 3; do echo $0: part $part; sleep 1; done"


async def main() -> None:
    """Submit two jobs and print progress and outcomes as they come."""
    jobs = [SubprocessJob(key=name, command=["sh", "-c", SCRIPT, name]) for name in ("left", "right")]
    async with Farm.embedded() as farm:
        batch = await farm.submit(jobs)
        async for event in batch.stream(progress=True):
            if isinstance(event, Progress):
                newest = event.stdout_tail.splitlines()[-1:]
                print(f"{event.key}: {event.running_s:.1f} s, {event.stdout_bytes} bytes, {newest}")
            else:
                print(f"{event.key}: ended with exit code {event.value.exit_code}")


if __name__ == "__main__":
    asyncio.run(main())
