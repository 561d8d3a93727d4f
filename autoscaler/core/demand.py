"""Demand: folds the readings of single VMs into one sample per lane, with its freshness.

Rules of this file: no data is never zero. A lane whose readings are old, impossible or missing gets NaN and a reason. The
demand of VMs in service that did not report, or reported something beyond what any VM can do (`_beyond`), is filled with
the mean of the others; `coverage` says how much of it was seen.
"""

from __future__ import annotations

from operator import is_
from typing import TypeVar

import numpy as np

from autoscaler.core.params import FoldParams
from autoscaler.core.rules import is_fixed
from autoscaler.core.types import Array, Bool, Float, Freshness, Int, Readings, Samples, Signal

Kind = TypeVar("Kind", Float, Int, Bool)

CLOCK_SKEW_S = 5.0
"""A reading may be stamped at most this far ahead of its arrival; if it is further ahead, its clock is wrong."""
BEYOND = 10.0
"""A reading is left out if it is this many times the VM's capacity, and its share this many times the median of the others."""
BEYOND_OF_IDLE = 100.0
"""Used instead of `BEYOND` if the other VMs are idle: a crowd at one VM may well be ten times what it can do, and VMs
started to help it report next to nothing at first."""
IDLE = 0.01
"""A VM whose work is below this share of its capacity is idle."""
_BEYOND = np.array(BEYOND)


def fold(
    params: FoldParams, readings: Readings, in_service: Int, fleet_capacity: Float, now_s: float
) -> Samples:
    """Sum the fresh readings of each lane into its demand.

    Args:
        params: How to read the values.
        readings: Readings of all lanes, in any order; sums are taken in that order, lane by lane.
        in_service: int64 (L,), VMs that should have reported. A VM that has just come into service should not count before
            it reports, or every scale-out would look like a loss of coverage.
        fleet_capacity: float64 (L,), work per second of those VMs; scales demand up to cover the silent ones.
        now_s: Time of the fold.

    Returns:
        Samples over L series.
    """
    lanes = len(params.signal)
    lane, value = readings.lane, readings.value
    observed_at_s, capacity = readings.observed_at_s, readings.capacity
    age = now_s - observed_at_s
    possible = _possible(readings, age, now_s)
    fresh = age <= params.max_age_s.take(lane)
    fresh &= possible
    if np.count_nonzero(fresh) < len(fresh):
        lane, value = lane[fresh], value[fresh]
        observed_at_s, capacity = observed_at_s[fresh], capacity[fresh]
    per_vm = params.signal != _TOTAL
    per_vm &= params.signal != _QUEUE
    work, left_out = _work(params, lane, value, capacity), None
    odd = _beyond(per_vm, lane, work, capacity)
    if odd is not None:
        left_out, kept = np.flatnonzero(fresh)[odd], ~odd
        lane, value, work = lane[kept], value[kept], work[kept]
        observed_at_s, capacity = observed_at_s[kept], capacity[kept]

    count = np.bincount(lane, minlength=lanes)
    seen = count > _NO_READING
    demand = _fill(per_vm, fleet_capacity, _per_lane(lane, capacity, lanes))
    demand *= _per_lane(lane, work, lanes)
    coverage: Float = count / np.maximum(in_service, _ONE_VM)
    if np.count_nonzero(per_vm) < lanes:
        np.copyto(coverage, seen, where=~per_vm)
    np.minimum(coverage, _WHOLE, out=coverage)
    oldest = _oldest(lane, observed_at_s, lanes)
    freshness = np.zeros(lanes, np.int64)
    if np.count_nonzero(seen) < lanes:
        demand[~seen], oldest[~seen] = np.nan, np.nan
        freshness = _freshness(readings.lane, possible, seen)
    return Samples(
        now_s=now_s,
        demand=demand,
        observed_at_s=oldest,
        freshness=freshness,
        coverage=coverage,
        censored=_censored(params, lane, value, count, seen),
        beyond=left_out,
    )


def _possible(readings: Readings, age_s: Float, now_s: float) -> Bool:
    """Which readings may be true: not from the future, finite and not negative: bool (N,)."""
    if readings.received_at_s is None:
        possible = age_s >= _LEAST_AGE
    else:
        possible = readings.observed_at_s - np.minimum(readings.received_at_s, now_s) <= _MOST_AHEAD
    possible &= readings.value >= _NO_WORK
    possible &= readings.value < _TOO_MUCH
    return possible


_MOST_AHEAD, _LEAST_AGE = np.array(CLOCK_SKEW_S), np.array(-CLOCK_SKEW_S)
_NO_WORK, _TOO_MUCH, _WHOLE = np.array(0.0), np.array(np.inf), np.array(1.0)
_NO_READING, _ONE_VM = np.array(0), np.array(1)
_TOTAL, _QUEUE = np.array(int(Signal.TOTAL)), np.array(int(Signal.QUEUE))
_CONCURRENCY, _UTILISATION = np.array(int(Signal.CONCURRENCY)), np.array(int(Signal.UTILISATION))
"""0-d arrays, because numpy takes longer to convert Python numbers."""
_CERTAIN_S = 1e-3
"""A reading this close to its maximum age is checked again, so that rounding cannot matter."""


class Folds:
    """Folds tick after tick, and skips a fold that can only repeat the last result.

    If the readings and everything they are compared with are equal to the bit, the samples stay the same until a reading
    becomes too old; newer readings with the same values give the same samples, too. Arrays equal to those of the last samples
    are returned as the same objects, and all are read-only, so that receivers can recognise unchanged values.
    """

    __slots__ = ("_given", "_params", "_samples", "_since_s", "_until_s", "_what", "_when")

    def __init__(self) -> None:
        self._params: FoldParams | None = None
        self._given: tuple[object, ...] = ()
        """The arguments of the last fold, if nothing can change them."""
        self._what: tuple[bytes, ...] = ()
        self._when = b""
        self._samples: Samples | None = None
        self._since_s = self._until_s = -np.inf

    def fold(
        self, params: FoldParams, readings: Readings, in_service: Int, fleet_capacity: Float, now_s: float
    ) -> Samples:
        """Return what the function `fold` returns, bit for bit."""
        given, last = (params, readings, in_service, fleet_capacity), self._samples
        known = bool(self._given) and all(map(is_, given, self._given))
        if known and last is not None and self._since_s <= now_s < self._until_s:
            self._since_s = now_s
            return Samples(
                now_s, last.demand, last.observed_at_s, last.freshness, last.coverage, last.censored
            )
        of = (readings.lane, readings.value, readings.capacity, in_service, fleet_capacity)
        what = tuple([array.tobytes() for array in of])
        when = readings.observed_at_s.tobytes()
        if not (what == self._what and params is self._params and readings.received_at_s is None):
            samples, until_s = fold(params, readings, in_service, fleet_capacity, now_s), -np.inf
        elif last is not None and when == self._when and self._since_s <= now_s < self._until_s:
            self._since_s = now_s
            return Samples(
                now_s, last.demand, last.observed_at_s, last.freshness, last.coverage, last.censored
            )
        else:
            until_s = _counts_until_s(params, readings, now_s)
            if last is not None and last.beyond is None and min(until_s, self._until_s) > -np.inf:
                oldest = _oldest(readings.lane, readings.observed_at_s, len(last.demand))
                if len(absent := np.flatnonzero(last.freshness)):
                    oldest[absent] = np.nan
                samples = Samples(now_s, last.demand, oldest, last.freshness, last.coverage, last.censored)
            else:
                samples = fold(params, readings, in_service, fleet_capacity, now_s)
        if samples.beyond is not None:
            # A reading left out now may count once the readings it was compared with are too old.
            until_s = -np.inf
        arrays: tuple[Array, ...] = (*of, readings.observed_at_s)
        fixed = readings.received_at_s is None and all(map(is_fixed, arrays))
        self._given = given if fixed else ()
        self._params, self._what, self._when = params, what, when
        self._since_s, self._until_s = now_s, until_s
        self._samples = samples if last is None else _with_arrays_of(last, samples)
        for array in (
            samples.demand,
            samples.observed_at_s,
            samples.freshness,
            samples.coverage,
            samples.censored,
        ):
            array.flags.writeable = False
        return self._samples


def _counts_until_s(params: FoldParams, readings: Readings, now_s: float) -> float:
    """Until when all of these readings count; -inf if one of them does not count, because it might later."""
    at_s, value = readings.observed_at_s, readings.value
    most_s = params.max_age_s.take(readings.lane)
    counts = (value >= 0.0) & (value < np.inf) & (now_s - at_s <= most_s) & (at_s - now_s <= CLOCK_SKEW_S)
    if np.count_nonzero(counts) < len(counts):
        return -np.inf
    return float(np.minimum.reduce(at_s + most_s, initial=np.inf)) - _CERTAIN_S


def _with_arrays_of(last: Samples, now: Samples) -> Samples:
    """The samples `now`, with the arrays of `last` wherever they are equal to the bit."""
    return Samples(
        now.now_s,
        _one(last.demand, now.demand),
        now.observed_at_s,
        _one(last.freshness, now.freshness),
        _one(last.coverage, now.coverage),
        _one(last.censored, now.censored),
        now.beyond,
    )


def _one(last: Kind, now: Kind) -> Kind:
    return last if last is now or last.tobytes() == now.tobytes() else now


def _oldest(lane: Int, observed_at_s: Float, lanes: int) -> Float:
    """When the oldest reading of each lane was observed: float64 (L,), infinite for a lane without readings."""
    oldest = np.empty(lanes)
    oldest.fill(np.inf)
    np.minimum.at(oldest, lane, observed_at_s)
    return oldest


def _per_lane(lane: Int, amount: Float, lanes: int) -> Float:
    """Sum per lane, in the order of the readings, so that a lane's sum does not depend on other lanes."""
    return np.bincount(lane, weights=amount, minlength=lanes).astype(np.float64, copy=False)


def _work(params: FoldParams, lane: Int, value: Float, capacity: Float) -> Float:
    """The work per second that each reading stands for: float64 (N,)."""
    in_flight = params.signal == _CONCURRENCY
    if np.count_nonzero(in_flight):
        # Work in flight as a share of what the VM may hold, times its capacity (Little's law).
        share = value / params.in_flight.take(lane)
        value = np.where(in_flight.take(lane), share * capacity, value)
    measured = params.signal == _UTILISATION
    by_utilisation = np.count_nonzero(measured)
    if not by_utilisation:
        return value
    work = value * capacity
    return work if by_utilisation == len(measured) else np.where(measured.take(lane), work, value)


def _fill(per_vm: Bool, fleet_capacity: Float, capacity_seen: Float) -> Float:
    """The factor from the work that was seen to that of all VMs, including silent ones, at least 1: float64 (L,)."""
    fill = np.empty(len(per_vm))
    fill.fill(1.0)
    np.divide(fleet_capacity, capacity_seen, out=fill, where=per_vm & (capacity_seen > _NO_WORK))
    np.maximum(fill, _WHOLE, out=fill)
    return fill


def _censored(params: FoldParams, lane: Int, value: Float, count: Int, seen: Bool) -> Bool:
    """Whether the VMs of a lane are saturated, bool (L,); `value` holds readings in their own unit."""
    measured = params.signal == _UTILISATION
    if not np.count_nonzero(measured):
        return np.zeros(len(seen), np.bool_)
    mean = _per_lane(lane, value, len(seen)) / np.maximum(count, 1)
    saturated: Bool = mean >= params.saturation
    saturated &= measured & seen
    return saturated


def _freshness(lane: Int, possible: Bool, seen: Bool) -> Int:
    """The freshness of each lane; lanes without a usable reading say why: int64 (L,)."""
    lanes = len(seen)
    some, some_possible = (np.bincount(of, minlength=lanes) > 0 for of in (lane, lane[possible]))
    absent = np.where(some, int(Freshness.INVALID), int(Freshness.ABSENT))
    stale = np.where(some_possible, int(Freshness.STALE), absent)
    return np.where(seen, int(Freshness.FRESH), stale)


def _beyond(single: Bool, lane: Int, work: Float, capacity: Float) -> Bool | None:
    """Return which fresh readings exceed anything that a VM can do, each lane judged by itself: bool (N,); None if none does.

    One VM that reports a thousand times its work (a counter in another unit, a broken exporter) would dominate the fleet's demand, and
    the fleet would grow to its maximum. No VM does many times its capacity while similar VMs do not: both its capacity and its fellows
    contradict it, so its reading counts as missing, never as zero. If more than half of a fleet reports such values, the capacity is
    what is wrong, and all readings count; so they do if there is nothing to compare with.

    Args:
        single: bool (L,), whether the lane's readings are of single VMs.
        lane: int64 (N,), lane index.
        work: float64 (N,), work per second that was reported, finite.
        capacity: float64 (N,), work per second of the reporting VM at the objective.
    """
    high = work > _BEYOND * capacity
    if not np.count_nonzero(high):
        return None
    lanes = len(single)
    high &= single.take(lane) & (capacity > 0.0)
    some = np.bincount(lane[high], minlength=lanes)
    doubtful = (some > 0) & (2 * some <= np.bincount(lane, minlength=lanes))
    found = np.zeros(len(lane), np.bool_)
    for one in np.flatnonzero(doubtful):
        own = np.flatnonzero(lane == one)
        share = work[own] / capacity[own]
        fellows = np.sort(share[~high[own]])
        usual = fellows[len(fellows) // 2]
        most = BEYOND_OF_IDLE if usual < IDLE else BEYOND * max(usual, 1.0)
        found[own] = share > most
    return found if np.count_nonzero(found) else None
