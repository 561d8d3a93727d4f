"""Compiles policies to the arrays that core decides on: one lane and one series per fleet; series i belongs to lane i.

Rules of this file: seconds become ticks only here and in `compiling_objective`. They are rounded up, so that a window is never shorter
than written. Padding never matches: see `core.params`; that of events ends where it starts.

Not here: what the daemon needs besides core (readiness, prices, which fleets act); that stays on the Policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from autoscaler.config.calendar import spans
from autoscaler.config.compiling_objective import economic_params, hold_s, refill_s
from autoscaler.config.known_events import occurrences
from autoscaler.config.policy import Policy
from autoscaler.config.section import whole_ticks
from autoscaler.config.wishes import ForecastSection, ReactiveSection
from autoscaler.core.forecast.events import STILL_COMING_S
from autoscaler.core.params import SCALE_IN_VMS, FoldParams, LaneParams, SeriesParams
from autoscaler.core.types import QUANTILE_LEVELS, Bool, Float, Int, Signal


@dataclass(frozen=True, slots=True)
class CompiledPolicies:
    """The parameters of all fleets, in the form that core takes.

    Attributes:
        fold, series, lanes: Parameters of `demand.fold`, `forecast.step` and `decide`.
    """

    fold: FoldParams
    series: SeriesParams
    lanes: LaneParams


def compile_params(
    policies: Sequence[Policy], tick_s: float, now_s: float, run_s: float = 0.0
) -> CompiledPolicies:
    """Compile policies that `load_policies` has accepted.

    Args:
        policies: One per fleet, at least one; their order is the order of lanes.
        tick_s: Length of a tick, seconds.
        now_s: Epoch seconds. Schedules are compiled from one day before to eight days after, so a daemon
            compiles again at least once a day.
        run_s: Seconds by which known events are compiled further ahead, for a replay that compiles only once.
    """
    series = _series(policies, tick_s, now_s, run_s)
    return CompiledPolicies(
        fold=FoldParams(
            signal=_ints(policies, lambda policy: Signal[policy.signal.kind.upper()]),
            max_age_s=_floats(policies, lambda policy: policy.signal.max_age_s),
            saturation=_floats(policies, lambda policy: policy.signal.saturation),
            in_flight=_floats(policies, lambda policy: policy.signal.in_flight or 1.0),
            drain_s=_floats(policies, lambda policy: policy.signal.drain_time_s),
        ),
        series=series,
        lanes=_lanes(policies, tick_s, now_s, series),
    )


def _lanes(policies: Sequence[Policy], tick_s: float, now_s: float, series: SeriesParams) -> LaneParams:
    # Created once, because this takes longer than reading the fields of all policies.
    without, no_forecast = ReactiveSection(), ForecastSection()

    def reactive(read: Callable[[ReactiveSection], float]) -> Float:
        return _floats(policies, lambda policy: read(policy.reactive or without))

    def warm_maximum(policy: Policy) -> int:
        wanted = policy.warm_pool.maximum
        return policy.max_provisioned if wanted is None else wanted

    step_lower, step_upper, step_vms, step_share = _step_rules(policies)
    window_start_s, window_end_s, window_floor = _windows(policies, now_s)
    return LaneParams(
        tick_s=tick_s,
        series=np.arange(len(policies), dtype=np.int64),
        vm_capacity=_floats(policies, lambda policy: policy.vm.capacity_per_s),
        reactive=_bools(policies, lambda policy: policy.reactive is not None),
        headroom=reactive(lambda section: section.headroom),
        tolerance=reactive(lambda section: section.tolerance),
        censored_growth=reactive(lambda section: 1 + section.censored_growth),
        steps=_bools(policies, lambda policy: bool(policy.steps)),
        step_lower=step_lower,
        step_upper=step_upper,
        step_vms=step_vms,
        step_share=step_share,
        schedule=_bools(policies, lambda policy: bool(policy.schedule)),
        window_start_s=window_start_s,
        window_end_s=window_end_s,
        window_floor=window_floor,
        known_begins_s=series.event_start_s,
        known_from_s=np.where(
            series.event_end_s > series.event_start_s,
            series.event_start_s - (series.lead_ticks + ~series.laws) * tick_s,
            series.event_end_s,
        ),
        known_end_s=np.minimum(series.event_end_s, series.event_start_s + STILL_COMING_S),
        cover=_bools(policies, lambda policy: policy.forecast is not None),
        cover_quantile=_ints(policies, lambda policy: quantile_index((policy.forecast or no_forecast).cover)),
        uses_signal=_bools(policies, lambda policy: policy.uses_signal),
        min_coverage=_floats(policies, lambda policy: policy.guards.minimum_coverage),
        loss_hold_s=_floats(policies, lambda policy: policy.signal.loss_hold_s),
        zero_hold_s=_floats(policies, _zero_hold_s),
        stabilisation_ticks=_ticks(policies, tick_s, lambda policy: policy.guards.stabilisation_s),
        cooldown_out_s=_floats(policies, lambda policy: policy.guards.cooldown_out_s),
        cooldown_in_s=_floats(policies, lambda policy: policy.guards.cooldown_in_s),
        minimum=_ints(policies, lambda policy: policy.bounds.minimum),
        maximum=_ints(policies, lambda policy: policy.bounds.maximum),
        rate_out_vms=_floats(policies, lambda policy: policy.guards.rate_out.vms),
        rate_out_period_s=_floats(policies, lambda policy: policy.guards.rate_out.per_s),
        rate_in_vms=_floats(policies, lambda policy: policy.guards.rate_in.vms),
        rate_in_period_s=_floats(policies, lambda policy: policy.guards.rate_in.per_s),
        provision=_bools(policies, lambda policy: policy.provision is not None),
        max_provisioned=_ints(policies, lambda policy: policy.max_provisioned),
        warm_minimum=_ints(policies, lambda policy: policy.warm_pool.minimum),
        warm_maximum=_ints(policies, warm_maximum),
        warm_memory_ticks=_ticks(policies, tick_s, lambda policy: policy.warm_pool.memory_s),
        warm_spare=_floats(policies, lambda policy: policy.warm_pool.spare),
        **economic_params(policies, tick_s),
        **_shared_params(policies),
    )


def quantile_index(cover: float) -> int:
    """Return the index of a covered share in QUANTILE_LEVELS; -1 if core has no such quantile."""
    return next((at for at, level in enumerate(QUANTILE_LEVELS) if abs(level - cover) < 1e-9), -1)


def _step_rules(policies: Sequence[Policy]) -> tuple[Float, Float, Int, Float]:
    shape = (max((len(policy.steps) for policy in policies), default=0), len(policies))
    lower, upper = np.full(shape, np.inf), np.full(shape, -np.inf)
    vms, share = np.zeros(shape, np.int64), np.zeros(shape)
    for lane, policy in enumerate(policies):
        for at, rule in enumerate(policy.steps):
            lower[at, lane] = -np.inf if rule.above is None else rule.above
            upper[at, lane] = np.inf if rule.below is None else rule.below
            vms[at, lane], share[at, lane] = rule.change.vms, rule.change.share
    return lower, upper, vms, share


def _windows(policies: Sequence[Policy], now_s: float) -> tuple[Float, Float, Int]:
    found = [
        [(start, end, window.at_least) for window in policy.schedule for start, end in spans(window, now_s)]
        for policy in policies
    ]
    shape = (max(map(len, found), default=0), len(policies))
    starts, ends, floors = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.int64)
    for lane, windows in enumerate(found):
        for at, (start, end, floor) in enumerate(windows):
            starts[at, lane], ends[at, lane], floors[at, lane] = start, end, floor
    return starts, ends, floors


def _zero_hold_s(policy: Policy) -> float:
    # With one reading for the whole fleet, demand cannot be seen to vanish at all VMs at once.
    return 0.0 if policy.signal.of_the_fleet else policy.signal.zero_hold_s


def _series(policies: Sequence[Policy], tick_s: float, now_s: float, run_s: float) -> SeriesParams:
    """Compile the parameters of `forecast.step`; arguments as in `compile_params`."""
    starts, ends, factors, odds = _events(policies, now_s, run_s)
    no_forecast = ForecastSection()
    laws = _bools(policies, lambda policy: policy.objective is not None)
    # A tick's demand is known at its end, so the first sample that a new VM serves comes one tick after it is ready.
    lead_ticks = _ticks(policies, tick_s, lambda policy: policy.vm.start_time_s) + laws
    back_ticks = _ticks(policies, tick_s, lambda policy: policy.vm.start_time_s + policy.vm.stop_time_s)
    return SeriesParams(
        tick_s=tick_s,
        lead_ticks=lead_ticks,
        keep_ticks=np.maximum(back_ticks, lead_ticks) - laws,
        hold_ticks=np.maximum(_ticks(policies, tick_s, hold_s), lead_ticks),
        refill_ticks=_ticks(policies, tick_s, refill_s),
        half_life_ticks=_floats(
            policies, lambda policy: (policy.forecast or no_forecast).half_life_s / tick_s
        ),
        scale=_floats(policies, lambda policy: SCALE_IN_VMS * policy.vm.capacity_per_s),
        laws=laws,
        refill_laws=laws & _bools(policies, lambda policy: policy.warm_pool.hibernate is not None),
        event_start_s=starts,
        event_end_s=ends,
        event_factor=factors,
        event_odds=odds,
    )


def _events(policies: Sequence[Policy], now_s: float, run_s: float) -> tuple[Float, Float, Float, Float]:
    found = [
        [
            (*span, event.factor, event.odds)
            for event in policy.events
            for span in occurrences(event, now_s, run_s)
        ]
        for policy in policies
    ]
    shape = (max(map(len, found), default=0), len(policies))
    starts, ends, factors, odds = np.zeros(shape), np.zeros(shape), np.ones(shape), np.zeros(shape)
    for series, events in enumerate(found):
        for at, event in enumerate(events):
            starts[at, series], ends[at, series], factors[at, series], odds[at, series] = event
    return starts, ends, factors, odds


class SharedParams(TypedDict):
    """The fields of `LaneParams` for limits that fleets share."""

    group: Int
    group_vms: Float
    group_money: Float
    group_starts: Float
    group_period_s: Float
    vm_price: Float


def _shared_params(policies: Sequence[Policy]) -> SharedParams:
    """Compile the groups of these policies.

    Fleets in shadow form groups of their own, so that VMs they would have use up no limit of the fleets that act.
    """
    groups = [policy.group for policy in policies]
    numbers: dict[object, int] = {}
    group = [
        -1 if limits is None else numbers.setdefault((limits, policy.act), len(numbers))
        for policy, limits in zip(policies, groups, strict=True)
    ]
    starts = [None if limits is None else limits.most_starts for limits in groups]
    return SharedParams(
        group=np.array(group, np.int64),
        group_vms=_limits([None if limits is None else limits.most_vms for limits in groups]),
        group_money=_limits([None if limits is None else limits.most_money_per_h for limits in groups]),
        group_starts=_limits([None if limit is None else limit.vms for limit in starts]),
        group_period_s=np.array([60.0 if limit is None else limit.per_s for limit in starts]),
        vm_price=np.array([policy.prices.in_service_per_h for policy in policies], np.float64),
    )


def _limits(most: Sequence[float | None]) -> Float:
    return np.array([np.inf if limit is None else limit for limit in most], np.float64)


def _floats(policies: Sequence[Policy], read: Callable[[Policy], float]) -> Float:
    return np.array([read(policy) for policy in policies], np.float64)


def _ints(policies: Sequence[Policy], read: Callable[[Policy], int]) -> Int:
    return np.array([read(policy) for policy in policies], np.int64)


def _bools(policies: Sequence[Policy], read: Callable[[Policy], bool]) -> Bool:
    return np.array([read(policy) for policy in policies], np.bool_)


def _ticks(policies: Sequence[Policy], tick_s: float, read: Callable[[Policy], float]) -> Int:
    return np.array([whole_ticks(read(policy), tick_s) for policy in policies], np.int64)
