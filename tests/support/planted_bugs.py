"""The program with planted bugs, compiled where there is a compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


def build(folder: Path, *flags: str) -> Path | None:
    """Compile the program into a folder; None where there is no compiler, or it does not know the flags."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = folder / "planted"
    done = subprocess.run([compiler, "-g", *flags, "-o", program, HERE / "planted.c"], capture_output=True, check=False)
    return program if done.returncode == 0 else None


def program(folder: Path) -> Path:
    """Return the program, or the script that does the same."""
    compiled = build(folder)
    if compiled is not None:
        return compiled
    script = folder / "planted"
    shutil.copy(HERE / "planted.py", script)
    script.chmod(0o755)
    return script
