"""The policy stages: each proposes a number of VMs, and the safest (highest) proposal is the wish.

Rules of this file: a stage is `stage(params, state, snapshot, outlook, wish) -> (wish, reason)`, pure apart
from `state`, element-wise over lanes, switched per lane by a mask in the parameters. A stage without usable
data proposes nothing; what then keeps the VMs is a guard (`guards.data`).
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.state import LaneState
from autoscaler.core.types import Bool, Float, Freshness, Int, Outlook, Reason, Snapshot

_ROUNDING = 1e-9
_MOST_VMS = 1e9
_NO_RULE = -(2**40)


def vms_for(work_per_s: Float, vm_capacity: Float) -> Int:
    """Fewest VMs that can do the work: int64 (L,), 0 where the work is unknown."""
    # fmax and not maximum: it answers 0 for NaN.
    need = np.fmax(np.ceil(work_per_s / vm_capacity - _ROUNDING), 0.0)
    return np.minimum(need, _MOST_VMS).astype(np.int64)


def ordered(snapshot: Snapshot) -> Int:
    """VMs in service or on their way there: int64 (L,)."""
    return snapshot.in_service + snapshot.starting


def reactive(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """Demand plus headroom, held within a tolerance around what is ordered.

    The tolerance band around the ratio of wanted to current is the Kubernetes horizontal autoscaler's rule,
    except that it may eat at most half of the headroom: beyond that a small difference is a burst's beginning.
    Where saturation hides demand, it is taken as `censored_growth` times what is seen; VMs already ordered
    count, so the growth does not compound while they start.
    """
    del state, outlook
    known = params.reactive & ~np.isnan(snapshot.demand)
    demand = snapshot.demand * np.where(snapshot.censored, params.censored_growth, 1.0)
    need = vms_for(demand * (1.0 + params.headroom), params.vm_capacity)
    now = ordered(snapshot)
    half_left = demand * (1.0 + 0.5 * params.headroom) <= (now + _ROUNDING) * params.vm_capacity
    held = (np.abs(need - now) <= params.tolerance * now) & (need != now) & half_left
    why = np.where(snapshot.censored, int(Reason.CENSORED), int(Reason.DEMAND))
    return _propose(wish, np.where(held, now, need), np.where(held, int(Reason.TOLERANCE), why), known)


def steps(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """Step rules on utilisation of what is ordered; where none matches, what is ordered stays.

    Shares round away from zero (at least one VM), as AWS step scaling documents it.
    """
    del state, outlook
    if not len(params.step_vms):
        return wish, np.zeros_like(wish)
    now = ordered(snapshot)
    known = params.steps & ~np.isnan(snapshot.demand) & (now > 0)
    utilisation = np.where(known, snapshot.demand / np.maximum(now * params.vm_capacity, 1e-300), np.nan)
    matches = (params.step_lower <= utilisation) & (utilisation < params.step_upper)
    share = params.step_share * now
    rounded = np.ceil(share - _ROUNDING)
    by_share = np.where(share < 0, np.minimum(rounded, -1.0), rounded)
    # The strongest matching rule in the safe direction: the highest change among those that match.
    best = np.maximum.reduce(np.where(matches, params.step_vms + by_share.astype(np.int64), _NO_RULE), axis=0)
    moved = known & (best > _NO_RULE)
    proposal = np.where(moved, np.maximum(now + best, 0), now)
    return _propose(wish, proposal, np.where(moved, int(Reason.STEP_RULE), int(Reason.TOLERANCE)), known)


def schedule(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """The highest floor among the schedule windows that hold now."""
    del state, outlook
    if not len(params.window_floor):
        return wish, np.zeros_like(wish)
    active = (params.window_start_s <= snapshot.now_s) & (snapshot.now_s < params.window_end_s)
    floor = np.maximum.reduce(active * params.window_floor, axis=0)
    return _propose(wish, floor, np.full_like(wish, int(Reason.SCHEDULE)), params.schedule & (floor > 0))


def cover(
    params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook, wish: Int
) -> tuple[Int, Int]:
    """Order up to a forecast quantile, with a dead zone.

    Below the quantile of demand at the lead time, go up to it; above the quantile of the highest demand
    until a stopped VM could be had back, go down to that; in between stay.
    """
    del state
    cell = params.cover_quantile * outlook.at_lead.shape[1] + params.series
    at_lead = outlook.at_lead.ravel().take(cell)
    peak = outlook.peak.ravel().take(cell)
    known = params.cover & (snapshot.freshness == Freshness.FRESH) & ~np.isnan(at_lead)
    low = vms_for(at_lead, params.vm_capacity)
    high = np.maximum(vms_for(peak, params.vm_capacity), low)
    now = ordered(snapshot)
    proposal = np.minimum(np.maximum(now, low), high)
    why = np.where(low >= now, int(Reason.FORECAST_COVER), int(Reason.FORECAST_KEEP))
    return _propose(wish, proposal, why, known)


def _propose(wish: Int, proposal: Int, why: Int, known: Bool) -> tuple[Int, Int]:
    raised = known & (proposal > wish)
    return np.where(raised, proposal, wish), np.where(raised, why, 0)
