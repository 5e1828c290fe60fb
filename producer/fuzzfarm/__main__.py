"""`python -m fuzzfarm`: the command line."""

import sys

from fuzzfarm.cli import main

if __name__ == "__main__":
    sys.exit(main())
