"""Capacity by place (a machine type in a zone): where room was lacking recently, and the odds of success.

Why one per account: what one fleet finds out about a place holds for all, and a place without room is tried once when its
time is over, not once by each fleet.

Rules of this file: pure values; time is an argument. A place without room is dry for a while, twice as long each time it is
found dry again. When the time is over, one fleet may try one VM there, for whatever purpose. The place stays dry until
that VM is known to have started, or never to have been ordered.

A place that had no room for many VMs may have room for some, since the provider starts all VMs of a call or none. One fleet at a
time may then try a quarter of them there at once, and if that fits, half of what may be left, until nothing fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ANYWHERE = ""
"""Zone of a place that stands for every zone of the region."""

DRY_S, LONGEST_DRY_S = 180.0, 600.0
"""How long a place is dry the first time, and at most, in seconds: a lack of room lasts for minutes."""
_FORGET_S = 3600.0
"""Time without another failure after which a place counts as any other, in seconds."""
MOST_KEPT = 512
"""Most places that are remembered across a restart."""
_HALF_LIFE_S = 7 * 86400.0
_PRIOR = 10.0
"""Weight of the prior odds, in starts."""
_BELIEF = 1.0
"""Prior odds of a start in a place of which nothing is known: none has failed yet."""
_HOUR_S = 3600.0
_HOURS = 24


@dataclass(slots=True)
class _Dry:
    """A place that had no room.

    Attributes:
        until_s: When it may be tried again.
        times: How many times in a row it was found without room.
        since_s: When it was last found without room.
        probing: Whether a VM is being tried there.
        claimed_s: When that VM was claimed.
        refused: Fewest VMs for which there was no room; fewer than that may fit.
        fitted: Whether the last VMs that were tried while it was dry did fit.
        narrowing: Whether some of these fewer VMs are being tried there.
    """

    until_s: float
    times: int
    since_s: float
    probing: bool = False
    claimed_s: float = -math.inf
    refused: int = 1
    fitted: bool = False
    narrowing: bool = False

    def at_most(self, now_s: float) -> float:
        """Return how many VMs may be tried now."""
        if self.until_s <= now_s:
            return 1.0
        if self.probing or self.narrowing:
            return 0.0
        # In quarters, a place without any room costs half as many calls as in halves before that is known.
        return float(self.refused // (2 if self.fitted else 4))


@dataclass(slots=True)
class _Tally:
    """Starts of one place, in total and by hour of the day (UTC); old ones count less."""

    at_s: float
    tried: float = 0.0
    failed: float = 0.0
    tried_in: list[float] = field(default_factory=lambda: [0.0] * _HOURS)
    failed_in: list[float] = field(default_factory=lambda: [0.0] * _HOURS)

    def add(self, tried: int, failed: int, now_s: float) -> None:
        """Add starts."""
        kept = 0.5 ** (max(now_s - self.at_s, 0.0) / _HALF_LIFE_S)
        self.at_s = max(self.at_s, now_s)
        self.tried, self.failed = self.tried * kept + tried, self.failed * kept + failed
        self.tried_in = [each * kept for each in self.tried_in]
        self.failed_in = [each * kept for each in self.failed_in]
        hour = _hour(now_s)
        self.tried_in[hour] += tried
        self.failed_in[hour] += failed

    def success(self, now_s: float) -> float:
        """Return the odds that a start works now: those of this hour, shrunk towards those of all hours."""
        overall = (self.tried - self.failed + _PRIOR * _BELIEF) / (self.tried + _PRIOR)
        hour = _hour(now_s)
        tried, failed = self.tried_in[hour], self.failed_in[hour]
        return (tried - failed + _PRIOR * overall) / (tried + _PRIOR)


class Places:
    """What is known of the places of one account and region."""

    def __init__(self) -> None:
        self.version = 0
        """Counts the changes to what may be started."""
        self._room_again = False
        self._dry: dict[tuple[str, str], _Dry] = {}
        self._tallies: dict[tuple[str, str], _Tally] = {}

    # ── room ───────────────────────────────────────────────────────────────────────────────────────────

    def found_dry(self, vm_type: str, zone: str, now_s: float, *, quota: bool = False, vms: int = 1) -> None:
        """Note that there was no room for this type in this zone; with `quota`, for its whole family in any zone.

        Several failures at the same moment count as one.

        Args:
            vm_type: Machine type of the place.
            zone: Zone of the place.
            now_s: The current time.
            quota: Whether a quota is used up.
            vms: For how many VMs at once there was no room.
        """
        key = (family(vm_type), ANYWHERE) if quota else (vm_type, zone)
        known = self._dry.get(key)
        if known is None or now_s - known.until_s > _FORGET_S:
            known = self._dry[key] = _Dry(-math.inf, 0, now_s)
        if known.probing or known.until_s <= now_s:
            known.times += 1
            known.since_s = now_s
            known.refused, known.narrowing, known.fitted = vms, False, False
        if vms < known.refused:
            # Calls for more VMs, of other fleets at the same time, say nothing about the fewer that are being tried.
            known.refused, known.narrowing, known.fitted = vms, False, False
        known.probing = False
        known.until_s = now_s + min(DRY_S * 2.0 ** min(known.times - 1, 10), LONGEST_DRY_S)
        self.version += 1

    def found_room(self, vm_type: str, zone: str, vms: int = 1) -> None:
        """Note that VMs of this type were accepted in this zone, so there was room and quota for them.

        A place that was dry is like any other again, unless it is known for how many VMs there was no room.
        """
        for key in ((vm_type, zone), (family(vm_type), ANYWHERE)):
            known = self._dry.get(key)
            if known is None:
                continue
            if known.probing or known.refused <= 1:
                del self._dry[key]
            else:
                known.refused, known.fitted, known.narrowing = max(known.refused - vms, 1), True, False
            self._room_again = True
            self.version += 1

    def take_room_again(self) -> bool:
        """Return whether a place that was dry has been found to have room since the last call."""
        found, self._room_again = self._room_again, False
        return found

    def claim(self, vm_type: str, zone: str, now_s: float) -> None:
        """Note that a VM is about to be tried in this place. If the place was dry, no other is tried until the result is
        known.
        """
        for known in self._known(vm_type, zone):
            if known.until_s <= now_s:
                known.probing, known.claimed_s = True, now_s
                known.until_s = now_s + DRY_S
                self.version += 1
            elif known.at_most(now_s):
                known.narrowing, known.claimed_s = True, now_s
                self.version += 1

    def give_back(self, vm_type: str, zone: str, sent_s: float, now_s: float) -> None:
        """Release a place whose trial was certainly not sent, so that another fleet may try it.

        Args:
            vm_type: Machine type of the place.
            zone: Zone of the place.
            sent_s: When the trial was about to be sent; a later claim of the place remains.
            now_s: The current time.
        """
        for known in self._known(vm_type, zone):
            if (known.probing or known.narrowing) and known.claimed_s <= sent_s:
                self._free(known, now_s)

    def give_back_all_of(self, at_s: float) -> None:
        """Release the places that were claimed at this moment, because nothing of that plan is sent."""
        for known in self._dry.values():
            if (known.probing or known.narrowing) and known.claimed_s == at_s:
                self._free(known, at_s)

    def _free(self, known: _Dry, now_s: float) -> None:
        if known.probing:
            known.until_s = min(known.until_s, now_s)
        known.probing = known.narrowing = False
        self.version += 1

    def free_from_s(self, vm_type: str, zone: str) -> float:
        """Return the time from which this place may be tried; minus infinity if it is not dry."""
        if not self._dry:
            return -math.inf
        return max((known.until_s for known in self._known(vm_type, zone)), default=-math.inf)

    def at_most(self, vm_type: str, zone: str, now_s: float) -> float:
        """Return how many VMs may be tried in this place now: infinity, some to see whether there is room, or 0."""
        if not self._dry:
            return math.inf
        return min((known.at_most(now_s) for known in self._known(vm_type, zone)), default=math.inf)

    def tried_together(self, vm_type: str, zone: str) -> frozenset[tuple[str, str]]:
        """Return the dry entries that one VM in this place tests: the place itself, its family's quota, both, or none."""
        keys = (vm_type, zone), (family(vm_type), ANYWHERE)
        return frozenset(key for key in keys if key in self._dry)

    @property
    def dry_at_all(self) -> bool:
        """Whether any place was found dry and has not been found to have room since."""
        return bool(self._dry)

    def dry(self, now_s: float) -> list[tuple[str, str]]:
        """Return the places that are dry now; the quota of a family of types is (family, `ANYWHERE`)."""
        return sorted(key for key, known in self._dry.items() if known.until_s > now_s)

    def _known(self, vm_type: str, zone: str) -> list[_Dry]:
        keys = ((vm_type, zone), (family(vm_type), ANYWHERE))
        return [known for key in keys if (known := self._dry.get(key)) is not None]

    # ── odds ───────────────────────────────────────────────────────────────────────────────────────────

    def tell(self, vm_type: str, zone: str, now_s: float, *, tried: int, failed: int) -> None:
        """Count starts in this place, and how many of them failed, whatever the reason, unless a person caused it."""
        tally = self._tallies.get((vm_type, zone))
        if tally is None:
            tally = self._tallies[vm_type, zone] = _Tally(now_s)
        tally.add(tried, failed, now_s)

    def success(self, vm_type: str, zone: str, now_s: float) -> float:
        """Return the odds, above 0 and up to 1, that a start in this place works in this hour of the day."""
        tally = self._tallies.get((vm_type, zone))
        return _BELIEF if tally is None else tally.success(now_s)

    # ── over restarts ──────────────────────────────────────────────────────────────────────────────────

    def dry_rows(self) -> list[list[object]]:
        """Return the places that were found dry, as rows for `take_up`."""
        return [
            [*key, known.until_s, known.times, known.since_s, known.probing]
            for key, known in sorted(self._dry.items())
            if known.until_s > -math.inf
        ]

    def odds_rows(self) -> list[list[object]]:
        """Return the counts of starts as rows for `take_up`, for the `MOST_KEPT` places that were counted last."""
        newest = sorted(self._tallies.items(), key=lambda item: (-item[1].at_s, item[0]))[:MOST_KEPT]
        return [[*key, t.at_s, t.tried, t.failed, *t.tried_in, *t.failed_in] for key, t in newest]

    def take_up(self, dry: Sequence[Sequence[Any]], odds: Sequence[Sequence[Any]], now_s: float) -> None:
        """Restore what an earlier run knew. What is known already, or lies ahead of the clock, is left alone.

        Raises:
            ValueError: The rows are not from `dry_rows` and `odds_rows`; nothing was restored.
            TypeError: The rows are not from `dry_rows` and `odds_rows`; nothing was restored.
        """
        found_dry = {}
        for vm_type, zone, until_s, times, since_s, probing in dry[:MOST_KEPT]:
            known = _Dry(_number(until_s), int(_number(times)), _number(since_s), bool(probing))
            found_dry[_place(vm_type, zone)] = known
        found_odds = {}
        for vm_type, zone, *numbers in odds[:MOST_KEPT]:
            at_s, tried, failed, *hours = map(_number, numbers)
            counts = (tried, failed, *hours)
            if len(hours) != 2 * _HOURS or min(counts) < 0.0 or failed > tried:
                raise ValueError("these are no counts of starts")
            tally = _Tally(at_s, tried, failed, hours[:_HOURS], hours[_HOURS:])
            found_odds[_place(vm_type, zone)] = tally
        for key, known in found_dry.items():
            # The tolerance is needed because sums of floats are inexact.
            if known.since_s <= now_s and known.until_s - now_s <= LONGEST_DRY_S + 1.0:
                self._dry.setdefault(key, known)
        for key, tally in found_odds.items():
            if tally.at_s <= now_s:
                self._tallies.setdefault(key, tally)
        self.version += 1


def _place(vm_type: object, zone: object) -> tuple[str, str]:
    if not isinstance(vm_type, str) or not isinstance(zone, str):
        raise TypeError("this is no place")
    return vm_type, zone


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


_STANDARD = frozenset({"a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"})


def family(vm_type: str) -> str:
    """Return the family of types that shares one EC2 quota: the standard types together, others by their letters."""
    if " " in vm_type:
        # Only a template determines the type (`ProvisionSpec.place`); its family may be any.
        return vm_type
    letters = ""
    for letter in vm_type:
        if not letter.isalpha():
            break
        letters += letter
    return "standard" if letters in _STANDARD else letters or vm_type


def _hour(now_s: float) -> int:
    return int(now_s // _HOUR_S) % _HOURS
