"""The result of a check: a problem in a policy, its place, and advice.

The check of time zones is here because several sections have one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo, available_timezones

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


def check_time_zone(name: str, place: YamlPath) -> Iterator[Finding]:
    """Yield a finding if there is no time zone of this name.

    Args:
        name: The name in the policy.
        place: The section whose `time_zone` it is.
    """
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        close = difflib.get_close_matches(name, sorted(available_timezones()), 1)
        yield Finding(
            ((*place, "time_zone"), place),
            f"there is no time zone `{name[:60]}`",
            f"did you mean `{close[0]}`?" if close else "write a name such as Europe/Berlin or UTC",
        )
