"""The result of a check: a problem in a policy, its place, and advice."""

from __future__ import annotations

from dataclasses import dataclass

from autoscaler.config.documents import Severity, YamlPath
from autoscaler.config.quantities import DURATION


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that a check found in a policy.

    Attributes:
        paths: The fields concerned; the finding is placed at the first of them that the fleet's own file has.
        message: What is wrong.
        advice: What to do.
        severity: Error or warning.
    """

    paths: tuple[YamlPath, ...]
    message: str
    advice: str
    severity: Severity = Severity.ERROR


def seconds_text(seconds: float) -> object:
    """Return a duration as written in a policy."""
    return DURATION.write(seconds)
