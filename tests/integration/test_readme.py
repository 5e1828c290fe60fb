"""The program in the README runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
LONGEST_S = 50.0


def test_the_python_program_of_the_readme_runs() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LONGEST_S, check=True
    )
    printed = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert printed["root"] == "12"
    assert printed["list"].startswith("SubprocessResult(exit_code=0")
    assert printed["power"].startswith("FuzzResult(examples=500")
    assert "RecursionError" in printed["power"]
