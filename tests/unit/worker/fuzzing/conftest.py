import sys
from pathlib import Path

# The targets of these tests are imported by name, in children that have our module path.
sys.path.insert(0, str(Path(__file__).parent))
