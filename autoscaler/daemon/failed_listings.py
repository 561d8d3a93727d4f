"""Failing listings: when each place was last listed completely, and log lines at the start, at a change, hourly and at the end.

A provider that is down for a night fails at every tick. The metric counts every failure; the log reports it once.

Rules of this file: wording and times only; the clock comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import Listing

AGAIN_S = 3600.0
"""After so long the same words are said again."""
OLD_S, OLD_TICKS = 60.0, 3
"""A whole listing is old after so long, and not before so many ticks."""


@dataclass(frozen=True, slots=True)
class PlaceListed:
    """How one place is listed.

    Attributes:
        name: What the settings call it; empty where it is the only one.
        whole_at_s: When its last whole listing came, epoch seconds; None where none has come yet.
        error: For a person, why the last one was not whole; empty where it was.
        sentence: For a person, that the last whole one is old, and why; empty where it is not.
    """

    name: str
    whole_at_s: float | None
    error: str
    sentence: str


class Unlisted:
    """Of each provider by itself: acting fleets and fleets in shadow share one listing of it, and so one failure.

    Args:
        telemetry: Where it is said, counted and dated.
        began_at_s: When the daemon began, from which the age of a place counts that has not been listed whole yet.
    """

    def __init__(self, telemetry: Telemetry, began_at_s: float) -> None:
        self._telemetry = telemetry
        self._began_at_s = began_at_s
        self._of: dict[str, _Unlisted] = {}

    def follow(self, listings: Iterable[tuple[str, Listing]], now_s: float) -> int:
        """Say, count and date what is new; how many failures there are, equal ones once.

        Args:
            listings: With the name of the provider; none at all is no news, and otherwise they are of all providers.
            now_s: The clock.
        """
        by_name: dict[str, list[Listing]] = {}
        for name, listing in listings:
            by_name.setdefault(name, []).append(listing)
        failed = 0
        for name, its in by_name.items():
            if (one := self._of.get(name)) is None:
                one = self._of[name] = _Unlisted(name, self._telemetry.log)
            failed += one.follow(its, now_s)
            whole_at_s = self._began_at_s if one.whole_at_s is None else one.whole_at_s
            self._telemetry.last_listing.labels(name).set(whole_at_s)
        for name in self._of.keys() - by_name.keys() if by_name else ():
            # No fleet is there any more, so nobody lists it.
            del self._of[name]
            self._telemetry.last_listing.remove_by_labels({"provider": name})
        if failed:
            self._telemetry.listing_errors.inc(failed)
        return failed

    def places(self, now_s: float, tick_s: float) -> list[PlaceListed]:
        """How each place is listed, by name."""
        return [
            PlaceListed(name, one.whole_at_s, one.error, self._old(one, now_s, tick_s))
            for name, one in sorted(self._of.items())
        ]

    def _old(self, one: _Unlisted, now_s: float, tick_s: float) -> str:
        age_s = now_s - (self._began_at_s if one.whole_at_s is None else one.whole_at_s)
        if not one.error or age_s <= max(OLD_S, OLD_TICKS * tick_s):
            return ""
        return f"no complete list of VMs for {_span(age_s)}: {one.error}"


class _Unlisted:
    """One provider."""

    def __init__(self, name: str, log: Any) -> None:
        self._name, self.log = name, log
        self.whole_at_s: float | None = None
        self.error = ""
        self._since_s: float | None = None
        self._said_s: dict[str, float] = {}
        """By reason, when it was last said; for an hour at most, so that reasons which take turns are not said in turns."""

    def follow(self, listings: Iterable[Listing], now_s: float) -> int:
        """As of `Unlisted`."""
        errors: dict[str, None] = {}
        for each in listings:
            if each.complete:
                self.whole_at_s = max(each.received_at_s, self.whole_at_s or each.received_at_s)
            else:
                errors[each.error] = None
        self.error = "; ".join(errors)
        if not errors:
            self._ended(now_s)
            return 0
        first_s = self._since_s = now_s if self._since_s is None else self._since_s
        # A clock that was set back would keep it quiet until it is as late again.
        self._said_s = {text: at for text, at in self._said_s.items() if 0.0 <= now_s - at < AGAIN_S}
        for error in errors:
            if error not in self._said_s:
                self._said_s[error] = now_s
                lasting = f" (no complete listing for {_span(now_s - first_s)})" if now_s > first_s else ""
                self.log.warning("listing_failed", text=error + lasting)
        return len(errors)

    def _ended(self, now_s: float) -> None:
        if self._since_s is not None:
            what = f"{self._name}: the list" if self._name else "the list"
            text = f"{what} of VMs is complete again, after {_span(now_s - self._since_s)}"
            self.log.info("listing_recovered", text=text)
        self._since_s = None
        self._said_s.clear()


def _span(seconds: float) -> str:
    """How long, as a person says it."""
    if seconds < 90.0:
        return f"{max(seconds, 0.0):.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"
