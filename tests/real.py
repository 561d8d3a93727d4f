"""Real components in tests: skip with a message where one is missing, or fail where it must not be."""

from __future__ import annotations

import os

import pytest

REQUIRE = "AUTOSCALER_REQUIRE_REAL"
"""Set to 1 where everything is installed: a component that is missing is then a failure, not a skip."""


def require_real(name: str, available: bool) -> None:
    """Skip the calling test unless the component is available; fail instead where the environment says so."""
    if available:
        return
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{name} is missing, and {REQUIRE}=1 asks for it", pytrace=False)
    pytest.skip(f"{name} is missing")
