"""Fold: per-VM readings become one demand sample per lane, with its freshness.

Rules of this file: no data is never zero. A lane whose readings are old, impossible or missing gets NaN and
the reason, and the demand of VMs in service that did not report is filled by the mean of those that did,
with `coverage` telling how much of it was seen.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.params import FoldParams
from autoscaler.core.types import Bool, Float, Freshness, Int, Readings, Samples, Signal

CLOCK_SKEW_S = 5.0
"""Readings stamped at most this far ahead of our clock are fresh; further ahead they are invalid."""


def fold(
    params: FoldParams, readings: Readings, in_service: Int, fleet_capacity: Float, now_s: float
) -> Samples:
    """Sum the fresh readings of each lane into its demand.

    Args:
        params: How to read the values.
        readings: Of all lanes, in any order; sums are taken in that order, lane by lane.
        in_service: int64 (L,), VMs that should have reported. A VM that has only just come into service
            counts once it reports, or else every scale-out would look like a loss of coverage.
        fleet_capacity: float64 (L,), work per second of those VMs; fills in for the silent ones.
        now_s: Time of the fold.

    Returns:
        Samples over L series.
    """
    lanes = len(params.signal)
    lane, value = readings.lane, readings.value
    age = now_s - readings.observed_at_s
    possible = np.isfinite(value) & (value >= 0.0) & (age >= -CLOCK_SKEW_S)
    fresh = possible & (age <= params.max_age_s[lane])
    signal = params.signal[lane]
    weight = np.where(fresh, readings.capacity, 0.0)
    used = np.where(fresh, value, 0.0)
    work = np.where(signal == Signal.UTILISATION, used * weight, used)

    count_all = _per_lane(lane, np.ones_like(value), lanes)
    count_possible = _per_lane(lane, possible.astype(np.float64), lanes)
    count_fresh = _per_lane(lane, fresh.astype(np.float64), lanes)
    work_seen = _per_lane(lane, work, lanes)
    capacity_seen = _per_lane(lane, weight, lanes)
    utilisation_seen = _per_lane(lane, used, lanes)

    per_vm = params.signal != Signal.TOTAL
    any_fresh = count_fresh > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        silent_share = np.where(per_vm & (capacity_seen > 0), fleet_capacity / capacity_seen, 1.0)
        demand = np.where(any_fresh, work_seen * np.maximum(silent_share, 1.0), np.nan)
        coverage = np.where(per_vm, count_fresh / np.maximum(in_service, 1), any_fresh)
        mean_utilisation = np.where(any_fresh, utilisation_seen / count_fresh, 0.0)
    censored = (params.signal == Signal.UTILISATION) & any_fresh & (mean_utilisation >= params.saturation)
    return Samples(
        now_s=now_s,
        demand=demand,
        observed_at_s=_oldest(readings, fresh, any_fresh, lanes),
        freshness=_freshness(count_all, count_possible, any_fresh),
        coverage=np.minimum(coverage, 1.0),
        censored=censored,
    )


def _per_lane(lane: Int, amount: Float, lanes: int) -> Float:
    """Sums in the order of the readings, so that a lane's sum does not depend on other lanes."""
    return np.bincount(lane, weights=amount, minlength=lanes).astype(np.float64)


def _oldest(readings: Readings, fresh: Bool, any_fresh: Bool, lanes: int) -> Float:
    oldest = np.full(lanes, np.inf)
    np.minimum.at(oldest, readings.lane[fresh], readings.observed_at_s[fresh])
    return np.where(any_fresh, oldest, np.nan)


def _freshness(count_all: Float, count_possible: Float, any_fresh: Bool) -> Int:
    absent = np.where(count_all > 0, Freshness.INVALID, Freshness.ABSENT)
    stale = np.where(count_possible > 0, Freshness.STALE, absent)
    return np.where(any_fresh, Freshness.FRESH, stale).astype(np.int64)
