"""Property tests of this folder use the project's profile."""

import property_profile  # noqa: F401
