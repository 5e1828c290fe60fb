"""A module whose import fails."""

raise RuntimeError("this module needs a license")
