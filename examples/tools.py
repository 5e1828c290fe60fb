"""Look into a program with the analysis tools, and with one of your own.

python examples/tools.py
"""

import asyncio
import sys

from fuzzfarm_worker import async_log_execution, async_track_metrics, run_strings_async
from fuzzfarm_worker.tools import INPUT, Tool, ToolMissingError, confined, register, run_tool, tool_metrics

COUNT = register(Tool("count", install="it comes with every system", program="wc"))


@async_log_execution(tool_name="count")
@async_track_metrics("count")
async def run_count_async(file_path: str) -> int:
    """Return the size of a file in bytes."""
    output = await run_tool(COUNT, ["-c", INPUT], file_path=file_path)
    return int(output.text.split()[0])


async def main() -> None:
    """Print what two tools say of this interpreter, and what that took."""
    async with confined(roots=["/"]):
        print("bytes:", await run_count_async(sys.executable))
        try:
            print("strings:", len((await run_strings_async(sys.executable, min_length=8)).strings))
        except ToolMissingError as exc:
            print(exc)
    print({name: numbers.calls for name, numbers in tool_metrics().items()})


if __name__ == "__main__":
    asyncio.run(main())
