"""The data guard: what may be done while demand data cannot be trusted.

Data is doubted if it is absent, stale or impossible, comes from too few VMs, rests on a partial listing, or says that all VMs ran out of
work at once: an outage of the measurements, or of something in front of the VMs, looks like that until time proves otherwise. So is
data that has only just come back: what Prometheus computes over a part of a window, or of its targets, looks like less demand.
Nothing is stopped on doubted data. Scaling out may act on part of it.

If a fleet stays blind for longer than its policy says, its number of VMs from then falls to the largest of three: the last wish that
rested on good data, what the schedule asks for, and what the forecast expects. A fleet that has never seen good data keeps what it has.

Rules of this file: one stage as described in `rules`; `trust_state` holds what it remembers.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.rules import (
    FRESH,
    UNCHANGED,
    Rule,
    RuleInputs,
    WhileSame,
    Why,
    is_fixed,
    where_any,
    whole_vms,
)
from autoscaler.core.sizing import quantiles
from autoscaler.core.trust_state import NEVER
from autoscaler.core.types import Bool, CountType, Float, Freshness, Int, Reason, Snapshot

VANISHED_VMS = 0.5
"""Demand that vanishes at once is doubted only if it was the work of more than this many VMs."""
RETURNED_S = 300.0
"""Data that was away for more than a tick counts as having only just come back for as long as it was away, and at most this long,
in seconds. A rate in Prometheus needs its whole window again: 15 s after a gap, rate(…[1m]) shows a third of the true rate, and a
sum that of the first targets only."""

_counted = attrgetter("coverage", "listed")
"""The arrays of a snapshot that say for how many VMs there is data."""
_REASON_OF_FRESHNESS = np.zeros(len(Freshness), np.int64)
_REASON_OF_FRESHNESS[Freshness.STALE] = Reason.DATA_STALE
_REASON_OF_FRESHNESS[Freshness.INVALID] = Reason.DATA_INVALID
_REASON_OF_FRESHNESS[Freshness.ABSENT] = Reason.DATA_ABSENT


def data(params: LaneParams, counts: CountType) -> Rule:
    """Prevent scale-in on data that cannot be trusted; if it stays away for long, fall back to the largest safe number."""
    vanishing = _vanished(params)
    fall_back = _fall_back(params, counts)

    def sparse(view: Snapshot) -> Bool:
        few: Bool = view.coverage < params.min_coverage
        few &= params.uses_signal
        few |= ~view.listed
        return few

    where_sparse = WhileSame(_counted, lambda view: where_any(sparse(view)))

    def rule(seen: RuleInputs, wish: Int) -> tuple[Int, Why]:
        view, trusted = seen.snapshot, seen.state.trusted
        few = where_sparse(view)
        gone = vanishing(seen) if vanishing is not None else None
        blind = None if seen.fresh is None else where_any(params.uses_signal & ~seen.fresh)
        returned = _returned(seen, blind, params.tick_s)
        unseen = _any_of(few, gone, blind)
        doubtful = _any_of(unseen, returned)
        instead = fall_back(seen, blind, wish)
        if doubtful is None:
            trusted.good = wish
            return wish, UNCHANGED
        good = np.where(doubtful, trusted.good, wish)
        if returned is not None:
            # What has come back may be a part, so a higher wish counts and a lower one does not.
            seen_in_part = returned if unseen is None else returned & ~unseen
            good = np.where(seen_in_part, np.maximum(trusted.good, wish), good)
        trusted.good = good
        held = doubtful & (wish < seen.ordered)
        value = np.where(held, seen.ordered, wish)
        fallen = None
        if instead is not None:
            fallen = instead > NEVER
            value = np.where(fallen, np.maximum(instead, wish), value)

        def why() -> Int:
            told: Int = np.full(len(wish), int(Reason.LOW_COVERAGE))
            if returned is not None:
                only = returned if few is None else returned & ~few
                told = np.where(only, int(Reason.DATA_RETURNED), told)
            if gone is not None:
                told = np.where(gone, int(Reason.DEMAND_VANISHED), told)
            told = np.where(view.freshness == FRESH, told, _REASON_OF_FRESHNESS[view.freshness])
            told = np.where(view.listed, told, int(Reason.LISTING_INCOMPLETE)) * held
            if fallen is not None:
                told = np.where(fallen, (value != wish) * int(Reason.DATA_FALLBACK), told)
            return told

        return value, why

    return rule


def _any_of(*masks: Bool | None) -> Bool | None:
    """Where any of the masks, bool (L,), holds; None stands for nowhere."""
    found: Bool | None = None
    for mask in masks:
        if mask is not None:
            found = mask if found is None else found | mask
    return found


def _fall_back(params: LaneParams, counts: CountType) -> Callable[[RuleInputs, Bool | None, Int], Int | None]:
    """Return a function that notes when lanes went blind, and gives the number of VMs that long-blind lanes fall back to.

    Its result is int (L,), `NEVER` in lanes that do not fall back; None if no lane does.
    """
    forecast = quantiles(params, params.cover_quantile) if params.cover.any() else None
    vms = whole_vms(params.vm_capacity, counts)

    def fallback(seen: RuleInputs, blind: Bool | None, wish: Int) -> Int | None:
        view, trusted = seen.snapshot, seen.state.trusted
        if blind is None:
            if trusted.lost:
                trusted.lost, trusted.lost_s = 0, np.full(len(wish), np.nan)
            return None
        trusted.lost = 1
        since_s = np.where(np.isnan(trusted.lost_s), view.now_s, trusted.lost_s)
        trusted.lost_s = np.where(blind, since_s, np.nan)
        # Nothing may be stopped on the counts of a partial listing.
        expired = where_any(
            blind & view.listed & (since_s + params.loss_hold_s <= view.now_s) & (trusted.good > NEVER)
        )
        if expired is None:
            return None
        safe = trusted.good
        if forecast is not None and seen.outlook is not None:
            expected = vms(forecast(seen.outlook.at_lead))
            safe = np.maximum(safe, np.where(params.cover, expected, 0))
        return np.where(expired, safe, NEVER).astype(counts)

    return fallback


def _returned(seen: RuleInputs, blind: Bool | None, tick_s: float) -> Bool | None:
    """Note where data comes back; return where it has only just done so, bool (L,), or None if nowhere.

    A lane that has never had good data has nothing to hold. A single tick without data does not count: a source that fails in every
    other tick would otherwise never let its fleet scale in.
    """
    now_s, trusted = seen.snapshot.now_s, seen.state.trusted
    if trusted.lost:
        back = (trusted.lost_s < now_s - 1.5 * tick_s) & (trusted.good > NEVER)
        if blind is not None:
            back &= ~blind
        if np.count_nonzero(back):
            until_s = now_s + np.minimum(now_s - trusted.lost_s, RETURNED_S)
            trusted.returned_s = np.where(back, np.maximum(trusted.returned_s, until_s), trusted.returned_s)
            trusted.returned = 1
    if not trusted.returned:
        return None
    returned = where_any(trusted.returned_s > now_s)
    if returned is None:
        trusted.returned = 0
    elif blind is not None:
        returned = where_any(returned & ~blind)
    return returned


def _vanished(params: LaneParams) -> Callable[[RuleInputs], Bool | None] | None:
    """Return a function that says in which lanes demand vanished at once a short while ago, bool (L,); None if in none.

    None is returned instead of the function if no lane doubts vanished demand.
    """
    if not (params.zero_hold_s > 0.0).any():
        return None
    notable = params.vm_capacity * VANISHED_VMS
    calm: Float | None = None

    def vanished(seen: RuleInputs) -> Bool | None:
        nonlocal calm
        view, trusted = seen.snapshot, seen.state.trusted
        demand = view.demand
        # If all lanes share one number in memory (stride 0), one comparison is enough.
        if trusted.gone_s is calm and (np.minimum.reduce(demand) if any(demand.strides) else demand[0]) > 0.0:
            # No demand is or was missing: the case of most ticks, at a tenth of the work.
            trusted.work = demand if is_fixed(demand) else demand.copy()
            return None
        nothing, some = view.demand == 0.0, view.demand > 0.0
        begun = nothing & np.isnan(trusted.gone_s)
        since_s = np.where(begun & (trusted.work > notable), view.now_s, trusted.gone_s)
        # Zero after little demand is believed at once, and for good.
        since_s = np.where(begun & (trusted.work <= notable), -np.inf, since_s)
        trusted.gone_s = np.where(some, np.nan, since_s)
        trusted.work = np.where(some, view.demand, trusted.work)
        calm = trusted.gone_s if np.isnan(trusted.gone_s).all() else None
        return where_any(nothing & params.uses_signal & (trusted.gone_s + params.zero_hold_s > view.now_s))

    return vanished
