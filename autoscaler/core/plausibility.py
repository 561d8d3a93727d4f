"""Plausibility: which readings of single VMs exceed anything that a VM can do.

Why: one VM that reports a thousand times its work (a counter in another unit, a broken exporter) would dominate the fleet's demand, and
the fleet would grow to its maximum. No VM does many times its capacity while similar VMs do not: both its capacity and its fellows
contradict it, so its reading counts as missing, never as zero. If more than half of a fleet reports such values, the capacity is what
is wrong, and all readings count; so they do if there is nothing to compare with.

Rules of this file: each lane is judged by itself.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.types import Bool, Float, Int

TIMES = 10.0
"""A reading is left out if it is this many times the VM's capacity, and its share this many times the median of the others."""
TIMES_OF_IDLE = 100.0
"""Used instead of `TIMES` if the other VMs are idle: a crowd at one VM may well be ten times what it can do, and VMs
started to help it report next to nothing at first."""
IDLE = 0.01
"""A VM whose work is below this share of its capacity is idle."""

_TIMES = np.array(TIMES)


def beyond(single: Bool, lane: Int, work: Float, capacity: Float) -> Bool | None:
    """Return which fresh readings exceed anything that a VM can do; None if none does.

    Args:
        single: bool (L,), whether the lane's readings are of single VMs.
        lane: int64 (N,), lane index.
        work: float64 (N,), work per second that was reported, finite.
        capacity: float64 (N,), work per second of the reporting VM at the objective.

    Returns:
        bool (N,), or None.
    """
    high = work > _TIMES * capacity
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
        most = TIMES_OF_IDLE if usual < IDLE else TIMES * max(usual, 1.0)
        found[own] = share > most
    return found if np.count_nonzero(found) else None
