"""Names of another module."""

from stateful_subjects import TestShelf  # noqa: F401
