"""Run programs under a watchdog: one that works, one that fails, one that hangs.

python examples/subprocess_jobs.py
"""

import asyncio

from fuzzfarm import Farm, ProcessLimits, SubprocessJob


async def main() -> None:
    """Submit three jobs and print how each ended."""
    jobs = [
        SubprocessJob(key="works", command=["uname", "-s"], limits=ProcessLimits(open_files=64)),
        SubprocessJob(key="fails", command=["ls", "/nowhere"]),
        SubprocessJob(key="hangs", command=["sleep", "1000"], timeout_s=1.0),
    ]
    async with Farm.embedded() as farm:
        aggregate = await (await farm.submit(jobs)).wait()
    for key, result in aggregate.results.items():
        print(f"{key}: exit code {result.exit_code}, {result.stdout.strip() or result.stderr.strip()}")
    for key, error in aggregate.errors.items():
        print(f"{key}: {error}")


if __name__ == "__main__":
    asyncio.run(main())
