"""Listings that fail, in the log: when it begins, when it is for another reason, hourly, and when it ended.

A provider that is down for a night fails at every tick. Its metric counts each time; a person reads it once.

Rules of this file: words and times; the clock comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from autoscaler.ports import Listing

AGAIN_S = 3600.0
"""After so long the same words are said again."""


class Unlisted:
    """Of all providers together: acting fleets and fleets in shadow share one listing, and so one failure of it.

    Args:
        log: Where it is said.
    """

    def __init__(self, log: Any) -> None:
        self.log = log
        self._since_s: float | None = None
        self._said_s: dict[str, float] = {}
        """By reason, when it was last said; for an hour at most, so that reasons which take turns are not said in turns."""

    def follow(self, listings: Iterable[Listing], now_s: float) -> int:
        """Say what is new; how many failures there are, equal ones once.

        Args:
            listings: One per provider; none at all is no news.
            now_s: The clock.
        """
        listings = tuple(listings)
        if not listings:
            return 0
        errors = dict.fromkeys(each.error for each in listings if not each.complete)
        if not errors:
            self._ended(now_s)
            return 0
        first_s = self._since_s = now_s if self._since_s is None else self._since_s
        # A clock that was set back would keep it quiet until it is as late again.
        self._said_s = {text: at for text, at in self._said_s.items() if 0.0 <= now_s - at < AGAIN_S}
        for error in errors:
            if error not in self._said_s:
                self._said_s[error] = now_s
                lasting = f" (no whole listing for {_span(now_s - first_s)})" if now_s > first_s else ""
                self.log.warning("listing_failed", text=error + lasting)
        return len(errors)

    def _ended(self, now_s: float) -> None:
        if self._since_s is not None:
            text = f"the list of VMs is whole again, after {_span(now_s - self._since_s)}"
            self.log.info("listing_recovered", text=text)
        self._since_s = None
        self._said_s.clear()


def _span(seconds: float) -> str:
    """How long, as a person says it."""
    if seconds < 90.0:
        return f"{max(seconds, 0.0):.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"
