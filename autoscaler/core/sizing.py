"""The policy stages: each proposes a number of VMs, and the highest (safest) proposal becomes the wish.

Rules of this file: stages as described in `rules`. A stage without usable data proposes 0; a guard (`trust.data`) then keeps the VMs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.rules import (
    ROUNDING,
    UNCHANGED,
    Rule,
    Seen,
    Why,
    most_of,
    one_for_all,
    pair,
    whole_vms,
    within,
)
from autoscaler.core.types import Bool, CountType, Float, Int, Reason

_NO_RULE = -(2**30)


def reactive(params: LaneParams, counts: CountType) -> Rule | None:
    """Demand plus headroom, held within a tolerance around what is ordered.

    The tolerance band around the ratio of wanted to current is the Kubernetes horizontal autoscaler's rule,
    except that it may eat at most half of the headroom: beyond that a small difference is a burst's beginning.
    Where saturation hides demand, it is taken as `censored_growth` times what is seen; VMs already ordered
    count, so the growth does not compound while they start.
    """
    if not params.reactive.any():
        return None
    only = _mask(params.reactive, counts)
    with_headroom = 1.0 + params.headroom
    within_tolerance = _tolerance(params) if (params.tolerance > 0.0).any() else None
    vms = whole_vms(params.vm_capacity, counts)

    told = pair(Reason.DEMAND, Reason.NONE)
    demand_everywhere = np.full(len(params.series), int(Reason.DEMAND))
    by_tolerance, by_none = np.array(int(Reason.TOLERANCE)), np.array(int(Reason.NONE))

    def rule(seen: Seen, wish: Int) -> tuple[Int, Why]:
        demand, censored = seen.snapshot.demand, seen.censored
        if censored is not None:
            demand = demand * np.where(censored, params.censored_growth, 1.0)
        need = proposal = vms(demand * with_headroom, spoil=True)
        held = None
        if within_tolerance is not None:
            change = need - seen.ordered
            held = within_tolerance(seen.ordered, change, demand)
            # What `where` would choose, in half the time.
            change *= held.astype(counts)
            proposal = np.subtract(need, change, out=change)
        value = np.maximum(wish, proposal if only is None else proposal * only)
        if held is None and censored is None:
            return value, told

        def why() -> Int:
            why = demand_everywhere.copy()
            if censored is not None:
                why[censored] = int(Reason.CENSORED)
            if held is not None:
                np.copyto(why, by_tolerance, where=held & (need != seen.ordered))
            np.copyto(why, by_none, where=value <= wish)
            return why

        return value, why

    return rule


def _tolerance(params: LaneParams) -> Callable[[Int, Int, Float], Bool]:
    """A function of VMs ordered, VMs needed beyond those, and demand, each (L,): where what is ordered may stay."""
    with_half_headroom = 1.0 + 0.5 * params.headroom
    rounding, capacity = np.array(ROUNDING), one_for_all(params.vm_capacity)

    def within(ordered: Int, change: Int, demand: Float) -> Bool:
        now = ordered.astype(np.float64)
        # Counts become floats in one go: comparing or adding the two kinds costs three times as much.
        near: Bool = np.abs(change).astype(np.float64) <= params.tolerance * now
        now += rounding
        now *= capacity
        near &= demand * with_half_headroom <= now
        return near

    return within


def steps(params: LaneParams, counts: CountType) -> Rule | None:
    """Step rules on utilisation of what is ordered; where none matches, what is ordered stays.

    Shares round up, the safe side, and a matching rule always moves by at least one VM. (AWS step scaling rounds
    towards zero, also by at least one.)
    """
    if not len(params.step_vms) or not params.steps.any():
        return None
    by_share = params.step_share.any()
    shrinks = params.step_share < 0.0
    nowhere = np.full(len(params.series), np.nan)
    furthest = most_of(counts)

    def rule(seen: Seen, wish: Int) -> tuple[Int, Why]:
        now = seen.ordered
        utilisation = nowhere.copy()
        np.divide(
            seen.snapshot.demand, now * params.vm_capacity, out=utilisation, where=params.steps & (now > 0)
        )
        change = params.step_vms
        if by_share:
            share = np.ceil(params.step_share * now - ROUNDING)
            share = np.where(shrinks, np.minimum(share, -1.0), share)
            change = change + share.astype(np.int64)
        matches = (params.step_lower <= utilisation) & (utilisation < params.step_upper)
        # The strongest matching rule in the safe direction: the highest change among those that match.
        strongest = np.maximum.reduce(np.where(matches, change, _NO_RULE), axis=0)
        moved = strongest > _NO_RULE
        best = np.clip(strongest, -furthest, furthest).astype(counts)
        value = np.maximum(wish, np.where(moved, now + best, now * ~np.isnan(utilisation)))

        def why() -> Int:
            why: Int = np.where(moved, int(Reason.STEP_RULE), int(Reason.TOLERANCE)) * (value > wish)
            return why

        return value, why

    return rule


def schedule(params: LaneParams, counts: CountType) -> Rule | None:
    """The highest floor among the schedule windows that hold now."""
    if not len(params.window_floor) or not params.schedule.any():
        return None
    edges = np.unique(np.concatenate([params.window_start_s.ravel(), params.window_end_s.ravel()]))
    floors = within(params.window_floor * params.schedule, counts)
    # Between two edges nothing changes, so the floor is worked out once for each such span.
    span, floor, anywhere = -1, np.zeros(len(params.series), counts), False

    told = pair(Reason.SCHEDULE, Reason.NONE)

    def rule(seen: Seen, wish: Int) -> tuple[Int, Why]:
        nonlocal span, floor, anywhere
        now_s = seen.snapshot.now_s
        now = int(edges.searchsorted(now_s, side="right"))
        if now != span:
            active = (params.window_start_s <= now_s) & (now_s < params.window_end_s)
            span, floor = now, np.maximum.reduce(active * floors, axis=0)
            anywhere = bool(floor.any())
        if not anywhere:
            return wish, UNCHANGED
        return np.maximum(wish, floor), told

    return rule


def cover(params: LaneParams, counts: CountType) -> Rule | None:
    """Order up to a forecast quantile, with a dead zone.

    Below the quantile of demand at the lead time, go up to it; above the quantile of the highest demand
    until a stopped VM could be had back, go down to that; in between stay.
    """
    if not params.cover.any():
        return None
    only = _mask(params.cover, counts)
    vms = whole_vms(params.vm_capacity, counts)
    read = quantiles(params, params.cover_quantile)
    keep_everywhere = np.full(len(params.series), int(Reason.FORECAST_KEEP))
    by_cover, by_none = np.array(int(Reason.FORECAST_COVER)), np.array(int(Reason.NONE))

    def rule(seen: Seen, wish: Int) -> tuple[Int, Why]:
        if seen.outlook is None:
            raise ValueError("A lane orders by forecast, so `decide` needs an Outlook.")
        low = vms(read(seen.outlook.at_lead))
        high = np.maximum(vms(read(seen.outlook.peak)), low)
        now = seen.ordered
        proposal = np.minimum(np.maximum(now, low), high)
        if only is not None:
            proposal *= only
        if seen.fresh is not None:
            proposal *= seen.fresh
        value = np.maximum(wish, proposal)

        def why() -> Int:
            why = keep_everywhere.copy()
            np.copyto(why, by_cover, where=low >= now)
            np.copyto(why, by_none, where=value <= wish)
            return why

        return value, why

    return rule


def quantiles(params: LaneParams, level: Int) -> Callable[[Float], Float]:
    """A function of an array (Q, S): for each lane its series' row of `level`, int64 (L,), as float64 (L,)."""
    series, lanes = params.series, np.arange(len(params.series))
    straight = bool((series == lanes).all()) and bool((level == level[:1]).all())
    cells: dict[int, Int] = {}

    def read(table: Float) -> Float:
        count = table.shape[1]
        if straight and count == len(series):
            row: Float = table[level[0]]
            return row
        if count not in cells:
            cells[count] = level * count + series
        return table.ravel().take(cells[count])

    return read


def _mask(chosen: Bool, counts: CountType) -> Int | None:
    """1 in the chosen lanes and 0 in the others; None where all are chosen."""
    return None if chosen.all() else chosen.astype(counts)
