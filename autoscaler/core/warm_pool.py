"""How many stopped VMs should wait.

Without an objective: what the highest desired of the memory window, plus a spare share, would need beyond what is ordered
now. It is what operators of stopped pools do by hand, on a clock that never forgets to. With an objective: as many as
are worth what they cost (`stopped`), once there is an hour to go by.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.rules import ROUNDING, within
from autoscaler.core.types import CountType, Float, Int, SmallInt


def warm_target(params: LaneParams, counts: CountType) -> Callable[[SmallInt, Int, Int | None], Int]:
    """A function of the highest desired of the memory window, of desired, each (L,), and of the VMs worth holding.

    These are int64 (n,) of the lanes that have an objective, -1 where not known yet; None where no lane has one.

    It gives the stopped VMs wanted: int (L,) of the type `counts`, within the policy's bounds on them.
    """
    with_spare = 1.0 + params.warm_spare
    rounding = np.array(ROUNDING)
    minimum, maximum = within(params.warm_minimum, counts), within(params.warm_maximum, counts)

    economic = np.flatnonzero(params.economic)
    everywhere = len(economic) == len(params.economic)
    # A peak seldom changes, and what is worth holding is the same array while it does not: of thousands of lanes, how many VMs
    # should exist is worked out anew where it has.
    known, kept = np.zeros(0, np.int32), np.zeros(0, counts)
    priced: Int | None = None
    exist = kept

    def spared(peak: SmallInt, spare: Float) -> Int:
        vms = peak.astype(np.float64)
        vms *= spare
        vms -= rounding
        return np.ceil(vms, out=vms).astype(counts)

    def remembered(peak: SmallInt) -> bool:
        """Whether the peak asks for as many VMs as before."""
        nonlocal known, kept
        moved = (peak != known).nonzero()[0] if len(known) else None
        known = peak
        if moved is None or 4 * len(moved) > len(peak):
            kept = spared(peak, with_spare)
        elif len(moved):
            kept[moved] = spared(peak[moved], with_spare[moved])
        else:
            return True
        return False

    def existing(worth: Int | None) -> Int:
        if worth is None:
            return kept
        of_lanes = kept if everywhere else kept[economic]
        found = np.where(worth >= 0, worth, of_lanes).astype(counts, copy=False)
        if everywhere:
            return found
        all_lanes = kept.copy()
        all_lanes[economic] = found
        return all_lanes

    def target(peak: SmallInt, desired: Int, worth: Int | None = None) -> Int:
        nonlocal exist, priced
        same = peak is known or remembered(peak)
        if not same or worth is not priced:
            exist, priced = existing(worth), worth
        beyond = exist - desired
        np.maximum(beyond, minimum, out=beyond)
        clipped: Int = np.minimum(beyond, maximum, out=beyond)
        return clipped

    return target
