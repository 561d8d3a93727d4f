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
    """Of each provider by itself: acting fleets and fleets in shadow share one listing of it, and so one failure.

    Args:
        log: Where it is said.
    """

    def __init__(self, log: Any) -> None:
        self.log = log
        self._of: dict[str, _Unlisted] = {}

    def follow(self, listings: Iterable[tuple[str, Listing]], now_s: float) -> int:
        """Say what is new; how many failures there are, equal ones once.

        Args:
            listings: With the name of the provider; none at all is no news.
            now_s: The clock.
        """
        by_name: dict[str, list[Listing]] = {}
        for name, listing in listings:
            by_name.setdefault(name, []).append(listing)
        failed = 0
        for name, its in by_name.items():
            if (one := self._of.get(name)) is None:
                one = self._of[name] = _Unlisted(name, self.log)
            failed += one.follow(its, now_s)
        return failed


class _Unlisted:
    """One provider."""

    def __init__(self, name: str, log: Any) -> None:
        self._name, self.log = name, log
        self._since_s: float | None = None
        self._said_s: dict[str, float] = {}
        """By reason, when it was last said; for an hour at most, so that reasons which take turns are not said in turns."""

    def follow(self, listings: Iterable[Listing], now_s: float) -> int:
        """As of `Unlisted`."""
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
            what = f"{self._name}: the list" if self._name else "the list"
            text = f"{what} of VMs is whole again, after {_span(now_s - self._since_s)}"
            self.log.info("listing_recovered", text=text)
        self._since_s = None
        self._said_s.clear()


def _span(seconds: float) -> str:
    """How long, as a person says it."""
    if seconds < 90.0:
        return f"{max(seconds, 0.0):.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"
