"""How property tests run: the same examples every time, and no limit per example on a busy machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("fuzzfarm", deadline=None, derandomize=True)
settings.load_profile("fuzzfarm")
