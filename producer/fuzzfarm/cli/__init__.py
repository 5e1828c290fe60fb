"""The command line of fuzzfarm; `import fuzzfarm` does not load it."""

from fuzzfarm.cli.app import main

__all__ = ["main"]
