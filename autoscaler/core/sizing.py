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
    RuleInputs,
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
    """Propose demand plus headroom, or what is ordered if the difference is within the tolerance.

    The tolerance around the ratio of wanted to current is the Kubernetes horizontal autoscaler's rule,
    except that it may use up at most half of the headroom: a demand beyond that may be the start of a burst.
    If saturation hides demand, demand is taken as `censored_growth` times what is seen. VMs already ordered
    count, so the growth does not compound while they start.
    """
    if not params.reactive.any():
        return None
    only = _mask(params.reactive, counts)
    with_headroom = 1.0 + params.headroom
    within_tolerance = _tolerance(params) if (params.tolerance > 0.0).any() else None
    vms = whole_vms(params.vm_capacity, counts)

    reasons = pair(Reason.DEMAND, Reason.NONE)
    demand_everywhere = np.full(len(params.series), int(Reason.DEMAND))
    by_tolerance, by_none = np.array(int(Reason.TOLERANCE)), np.array(int(Reason.NONE))

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        demand, censored = seen.snapshot.demand, seen.censored
        if censored is not None:
            demand = demand * np.where(censored, params.censored_growth, 1.0)
        need = proposal = vms(demand * with_headroom, spoil=True)
        held = None
        if within_tolerance is not None:
            change = need - seen.ordered
            held = within_tolerance(seen.ordered, change, demand)
            # The same as `np.where`, in half the time.
            change *= held.astype(counts)
            proposal = np.subtract(need, change, out=change)
        value = np.maximum(wish, proposal if only is None else proposal * only)
        if held is None and censored is None:
            return value, reasons

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
    """Return a function of VMs ordered, VMs needed beyond them, and demand, (L,) each: whether the ordered number may stay."""
    with_half_headroom = 1.0 + 0.5 * params.headroom
    rounding, capacity = np.array(ROUNDING), one_for_all(params.vm_capacity)

    def within(ordered: Int, change: Int, demand: Float) -> Bool:
        now = ordered.astype(np.float64)
        # Convert counts to float once: mixed-type comparisons and sums take three times as long.
        near: Bool = np.abs(change).astype(np.float64) <= params.tolerance * now
        now += rounding
        now *= capacity
        near &= demand * with_half_headroom <= now
        return near

    return within


def steps(params: LaneParams, counts: CountType) -> Rule | None:
    """Propose what the step rules on the utilisation of the ordered VMs ask for; if none matches, what is ordered.

    Shares round up, the safe side, and a matching rule always moves by at least one VM. (AWS step scaling rounds
    towards zero, also by at least one.)
    """
    if not len(params.step_vms) or not params.steps.any():
        return None
    by_share = params.step_share.any()
    shrinks = params.step_share < 0.0
    nowhere = np.full(len(params.series), np.nan)
    furthest = most_of(counts)

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
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
        # Of several matching rules the highest change applies, the safe side.
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
    """Propose the highest floor among the schedule windows that are open now."""
    if not len(params.window_floor) or not params.schedule.any():
        return None
    edges = np.unique(np.concatenate([params.window_start_s.ravel(), params.window_end_s.ravel()]))
    floors = within(params.window_floor * params.schedule, counts)
    # The floor changes only at edges, so it is computed once per span between two edges.
    span, floor, anywhere = -1, np.zeros(len(params.series), counts), False

    reasons = pair(Reason.SCHEDULE, Reason.NONE)

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        nonlocal span, floor, anywhere
        now_s = seen.snapshot.now_s
        now = int(edges.searchsorted(now_s, side="right"))
        if now != span:
            active = (params.window_start_s <= now_s) & (now_s < params.window_end_s)
            span, floor = now, np.maximum.reduce(active * floors, axis=0)
            anywhere = bool(floor.any())
        if not anywhere:
            return wish, UNCHANGED
        return np.maximum(wish, floor), reasons

    return rule


def cover(params: LaneParams, counts: CountType) -> Rule | None:
    """Propose to order up to a forecast quantile, with a dead zone.

    If fewer VMs are ordered than the quantile of demand at the lead time needs, go up to that; if more are ordered than the
    quantile of the highest demand until a stopped VM could serve again needs, go down to that; otherwise stay.
    """
    if not params.cover.any():
        return None
    only = _mask(params.cover, counts)
    vms = whole_vms(params.vm_capacity, counts)
    read = quantiles(params, params.cover_quantile)
    keep_everywhere = np.full(len(params.series), int(Reason.FORECAST_KEEP))
    by_cover, by_none = np.array(int(Reason.FORECAST_COVER)), np.array(int(Reason.NONE))

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
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
    """Return a function of a quantile table (Q, S): the row `level`, int64 (L,), of each lane's series, as float64 (L,)."""
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
    """1 in the chosen lanes and 0 in the others; None if all are chosen."""
    return None if chosen.all() else chosen.astype(counts)
