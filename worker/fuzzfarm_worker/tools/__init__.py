"""Binary-analysis tools: typed, bounded, confined to allowed folders; usable alone, and as operations of a farm."""

from fuzzfarm_worker.tools.binwalk import BinwalkResult, Signature, run_binwalk_async
from fuzzfarm_worker.tools.errors import ToolError, ToolFailedError, ToolInputError, ToolMissingError
from fuzzfarm_worker.tools.metrics import (
    ToolMetrics,
    async_log_execution,
    async_track_metrics,
    reset_tool_metrics,
    tool_metrics,
)
from fuzzfarm_worker.tools.radare2 import Radare2Result, run_radare2_async
from fuzzfarm_worker.tools.registry import INPUT, Tool, ToolOutput, register, run_tool, tools
from fuzzfarm_worker.tools.strings import StringsResult, run_strings_async
from fuzzfarm_worker.tools.workplace import confined
from fuzzfarm_worker.tools.yara import YaraMatch, YaraProgress, YaraResult, run_yara_with_progress

__all__ = [
    "INPUT",
    "BinwalkResult",
    "Radare2Result",
    "Signature",
    "StringsResult",
    "Tool",
    "ToolError",
    "ToolFailedError",
    "ToolInputError",
    "ToolMetrics",
    "ToolMissingError",
    "ToolOutput",
    "YaraMatch",
    "YaraProgress",
    "YaraResult",
    "async_log_execution",
    "async_track_metrics",
    "confined",
    "register",
    "reset_tool_metrics",
    "run_binwalk_async",
    "run_radare2_async",
    "run_strings_async",
    "run_tool",
    "run_yara_with_progress",
    "tool_metrics",
    "tools",
]
