"""Strategies that workers of the tests import by name."""

from __future__ import annotations

from hypothesis import strategies as st

SMALL = st.integers(0, 9)
