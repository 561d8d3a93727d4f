"""Compiles policies to the arrays that core decides on: one lane per fleet; series i belongs to lane i.

Rules of this file: seconds become ticks only here and in the modules called from here. They are rounded up, so that a window is
never shorter than written. Padding never matches (see `core.params`).

Not here: what the daemon needs besides core (readiness, prices, which fleets act); that stays on the Policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.config.calendar import spans
from autoscaler.config.compiling_objective import economic_params
from autoscaler.config.compiling_series import compile_series
from autoscaler.config.compiling_shared import shared_params
from autoscaler.config.policy import Policy
from autoscaler.config.section import whole_ticks
from autoscaler.config.wishes import ForecastSection, ReactiveSection
from autoscaler.core.forecast.events import STILL_COMING_S
from autoscaler.core.params import FoldParams, LaneParams, SeriesParams
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
    series = compile_series(policies, tick_s, now_s, run_s)
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
        stabilisation_ticks=_ints(
            policies, lambda policy: whole_ticks(policy.guards.stabilisation_s, tick_s)
        ),
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
        warm_memory_ticks=_ints(policies, lambda policy: whole_ticks(policy.warm_pool.memory_s, tick_s)),
        warm_spare=_floats(policies, lambda policy: policy.warm_pool.spare),
        **economic_params(policies, tick_s),
        **shared_params(policies),
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


def _floats(policies: Sequence[Policy], read: Callable[[Policy], float]) -> Float:
    return np.array([read(policy) for policy in policies], np.float64)


def _ints(policies: Sequence[Policy], read: Callable[[Policy], int]) -> Int:
    return np.array([read(policy) for policy in policies], np.int64)


def _bools(policies: Sequence[Policy], read: Callable[[Policy], bool]) -> Bool:
    return np.array([read(policy) for policy in policies], np.bool_)
