"""Failing listings, sources and ticks: what is logged of them, and which fleets have had no decision for too long.

What is down for a night fails at every tick, what is slow at every other, often alternating between two reasons (a source hangs; it
reports that it had no answer). The metrics count every failure; the log reports it once: at the start, at a new reason, hourly, and at
the end.

Rules of this file: wording and times only; the clock comes in as an argument.
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import Listing

if TYPE_CHECKING:
    from autoscaler.daemon.fleets import Fleet

AGAIN_S = 3600.0
"""Time after which an unchanged failure is logged again, in seconds."""
OFTEN = 3
"""After so many failures that were logged within AGAIN_S, one is logged only if it lasts for OLD_S."""
OLD_S, OLD_TICKS = 60.0, 3
"""Age in seconds, and in ticks, that the last complete listing must both exceed to be old."""
STALE_AFTER_TICKS = 3
"""Ticks without a decision for a fleet after which the daemon is unhealthy."""
_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class PlaceListed:
    """The state of one place's listings.

    Attributes:
        name: The place's name in the settings; empty if it is the only one.
        whole_at_s: When the last complete listing arrived, epoch seconds; None before the first.
        error: For people, why the last listing was not complete; empty if it was.
        sentence: For people, that the last complete listing is old, and why; empty if it is not.
    """

    name: str
    whole_at_s: float | None
    error: str
    sentence: str


class FailedListings:
    """Follows the listings of every provider.

    Acting fleets and fleets in shadow share one listing of a provider, and so one failure.

    Args:
        telemetry: Where failures are logged and counted.
        began_at_s: When the daemon started: the age of a place's last complete listing counts from then until the first
            one.
    """

    def __init__(self, telemetry: Telemetry, began_at_s: float) -> None:
        self._telemetry = telemetry
        self._began_at_s = began_at_s
        self._of: dict[str, _FailedListing] = {}

    def follow(self, listings: Iterable[tuple[str, Listing]], now_s: float) -> int:
        """Log, count and date what is new, and return how many different failures there are.

        Args:
            listings: The listing of every provider, with the provider's name. Without any (a turn that does not list),
                nothing changes.
            now_s: The current time.
        """
        by_name: dict[str, list[Listing]] = {}
        for name, listing in listings:
            by_name.setdefault(name, []).append(listing)
        failed = 0
        for name, its in by_name.items():
            if (one := self._of.get(name)) is None:
                one = self._of[name] = _FailedListing(name, self._telemetry.log)
            failed += one.follow(its, now_s)
            whole_at_s = self._began_at_s if one.whole_at_s is None else one.whole_at_s
            self._telemetry.last_listing.labels(name).set(whole_at_s)
        for name in self._of.keys() - by_name.keys() if by_name else ():
            # A place without a fleet is no longer listed.
            del self._of[name]
            self._telemetry.last_listing.remove_by_labels({"provider": name})
        if failed:
            self._telemetry.listing_errors.inc(failed)
        return failed

    def places(self, now_s: float, tick_s: float) -> list[PlaceListed]:
        """Return the state of each place's listings, in the order of names."""
        return [
            PlaceListed(name, one.whole_at_s, one.error, self._old(one, now_s, tick_s))
            for name, one in sorted(self._of.items())
        ]

    def _old(self, one: _FailedListing, now_s: float, tick_s: float) -> str:
        age_s = now_s - (self._began_at_s if one.whole_at_s is None else one.whole_at_s)
        if not one.error or age_s <= max(OLD_S, OLD_TICKS * tick_s):
            return ""
        return f"no complete list of VMs for {_span(age_s)}: {one.error}"


class _FailedListing:
    """Follows the listings of one provider."""

    def __init__(self, name: str, log: Any) -> None:
        self._name, self.log = name, log
        self.whole_at_s: float | None = None
        self.error = ""
        self._since_s: float | None = None
        self._is_told = False
        self._told_at_s: list[float] = []
        """When failures were first logged, each until it ended, within the last AGAIN_S."""
        self._said_s: dict[str, float] = {}
        """By reason, when it was last logged. Kept for an hour, so that alternating reasons are not logged in turns."""

    def follow(self, listings: Iterable[Listing], now_s: float) -> int:
        """Log what is new about these listings, and return how many different failures there are."""
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
        # Times ahead of a clock that was set back would suppress the log until the clock reaches them.
        self._said_s = {text: at for text, at in self._said_s.items() if 0.0 <= now_s - at < AGAIN_S}
        self._told_at_s = [at for at in self._told_at_s if 0.0 <= now_s - at < AGAIN_S]
        if not self._is_told and len(self._told_at_s) >= OFTEN and 0.0 <= now_s - first_s < OLD_S:
            return len(errors)
        for error in errors:
            if error not in self._said_s:
                self._said_s[error] = now_s
                lasting = f" (no complete listing for {_span(now_s - first_s)})" if now_s > first_s else ""
                self.log.warning("listing_failed", text=error + lasting + self._often(now_s))
        return len(errors)

    def _often(self, now_s: float) -> str:
        """Note that a failure is logged; return what is to be added if such failures come and go."""
        if self._is_told:
            return ""
        self._is_told = True
        self._told_at_s.append(now_s)
        if len(self._told_at_s) != OFTEN:
            return ""
        return (
            f"; this comes and goes, so for the next hour it is reported again only if it lasts {OLD_S:.0f} s"
        )

    def _ended(self, now_s: float) -> None:
        if self._is_told and self._since_s is not None:
            what = f"{self._name}: the list" if self._name else "the list"
            text = f"{what} of VMs is complete again, after {_span(now_s - self._since_s)}"
            self.log.info("listing_recovered", text=text)
        self._since_s, self._is_told = None, False
        self._said_s.clear()


class FailedSources:
    """Reports failing sources.

    Args:
        telemetry: Where failures are reported.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._said_s: dict[str, dict[str, float]] = {}
        """By fleet and reason (without its numbers), when it was last reported; only while the source fails."""

    def follow(self, fleet: Fleet, error: str, now_s: float) -> None:
        """Report what is new about a fleet's source, and keep the error on the fleet.

        Args:
            fleet: The fleet.
            error: For people, what is wrong with the source; empty if nothing is.
            now_s: The current time.
        """
        if error:
            reason, said_s = _NUMBER.sub("0", error), self._said_s.setdefault(fleet.name, {})
            # A time ahead of a clock that was set back would suppress the log until the clock reaches it.
            if not 0.0 <= now_s - said_s.get(reason, now_s - AGAIN_S) < AGAIN_S:
                said_s[reason] = now_s
                self._telemetry.log.warning("source_failed", fleet=fleet.name, text=error)
        elif fleet.source_error:
            self._said_s.pop(fleet.name, None)
            self._telemetry.log.info("source_recovered", fleet=fleet.name, text="metrics are read again")
        fleet.source_error = error

    def keep(self, fleets: Container[str]) -> None:
        """Forget all fleets but these."""
        self._said_s = {name: said_s for name, said_s in self._said_s.items() if name in fleets}


class FailedTicks:
    """Reports failing ticks, and counts repetitions.

    Args:
        telemetry: Where failures are logged and counted.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._failures: Counter[tuple[str, str, int]] = Counter()

    def tell(self, tick: int, error: Exception) -> None:
        """Report a tick that has failed."""
        self._telemetry.ticks_failed.inc()
        place = traceback.extract_tb(error.__traceback__)[-1]
        key = type(error).__name__, place.filename, place.lineno or 0
        self._failures[key] += 1
        words = f"{type(error).__name__}: {error}"
        if self._failures[key] == 1:
            text = f"{words}; nothing is done, please report"
            self._telemetry.log.error("tick_failed", tick=tick, text=text, exc_info=error)
        else:
            text = f"{words}; nothing is done, {self._failures[key]} times so far"
            self._telemetry.log.error("tick_failed", tick=tick, text=text)


def stale(fleets: Iterable[Fleet], *, now_s: float, began_at_s: float, tick_s: float) -> list[str]:
    """Return one sentence, for people, per fleet that is not being decided on; empty if every fleet is.

    Args:
        fleets: The fleets.
        now_s: The current time.
        began_at_s: When the daemon started; counts as the last decision of fleets that have had none.
        tick_s: Length of a tick, in seconds.
    """
    limit_s = STALE_AFTER_TICKS * tick_s
    found = []
    for fleet in fleets:
        since_s = now_s - (fleet.evaluated_at_s if fleet.evaluated_at_s is not None else began_at_s)
        if since_s > limit_s:
            found.append(f"{fleet.name} has had no decision for {since_s:.0f} s (limit {limit_s:.0f} s)")
    return found


def _span(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < 90.0:
        return f"{max(seconds, 0.0):.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"
