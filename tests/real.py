"""Real components in tests: skip with a message if one is missing, or fail if it must not be."""

from __future__ import annotations

import os

import pytest

REQUIRE = "AUTOSCALER_REQUIRE_REAL"
"""Set to 1 where everything is installed: a missing component is then a failure instead of a skip."""


def require_real(name: str, available: bool) -> None:
    """Skip the calling test unless the component is available. Fail instead if the environment requires it."""
    if available:
        return
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{name} is missing, and {REQUIRE}=1 asks for it", pytrace=False)
    pytest.skip(f"{name} is missing")
