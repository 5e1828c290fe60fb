"""What can go wrong with a tool.

ToolError
  ToolInputError    its input is refused; nothing was run
    ToolPlaceError  it was called in a child of isolation="child"; nothing was run
  ToolMissingError  it is not installed, or not allowed here
  ToolFailedError   it ended with an error
"""

from __future__ import annotations

from fuzzfarm_shared.errors import FuzzfarmError


class ToolError(FuzzfarmError):
    """A tool could not do what it was asked."""


class ToolInputError(ToolError, ValueError):
    """A file or command for a tool is refused; nothing was run."""


class ToolPlaceError(ToolInputError):
    """A tool was called in a child, which knows nothing of the folders that its worker allows; nothing was run."""


class ToolMissingError(ToolError):
    """A tool is not installed on this host, or its operator does not allow it.

    Attributes:
        tool: its name.
    """

    def __init__(self, tool: str, message: str) -> None:
        self.tool = tool
        super().__init__(message)


class ToolFailedError(ToolError):
    """A tool ended with an error.

    Attributes:
        tool: its name.
        exit_code: as in `subprocess`; negative is the signal.
        stderr: the end of its error output.
    """

    def __init__(self, tool: str, exit_code: int, stderr: str) -> None:
        self.tool, self.exit_code, self.stderr = tool, exit_code, stderr
        reason = f": {stderr.strip().splitlines()[-1]}" if stderr.strip() else ""
        super().__init__(f"{tool} ended with exit code {exit_code}{reason}")
