"""Fuzz functions by name, and read the findings.

python examples/fuzzing.py
"""

import asyncio

from fuzzfarm import Farm, FuzzOperation


async def main() -> None:
    """Fuzz two of the bundled targets and print what fails."""
    operations = [
        FuzzOperation(key="ini", target="fuzzfarm.demo_targets:fuzz_ini_round_trip", examples=500, seed=7),
        FuzzOperation(key="runs", target="fuzzfarm.demo_tests:test_decode_inverts_encode", time_s=5.0),
    ]
    async with Farm.embedded(workers=2) as farm:
        batch = await farm.submit(operations)
        async for outcome in batch.stream():
            if outcome.error is not None:
                print(f"{outcome.key}: {outcome.error}")
                continue
            print(f"{outcome.key}: {outcome.value.examples} examples")
            for finding in outcome.value.findings:
                print(f"  {finding.type}: {finding.example}  (seen {finding.count} times)")


if __name__ == "__main__":
    asyncio.run(main())
