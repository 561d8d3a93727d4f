"""Compiles policies to the parameters of `forecast.step`: one series per policy.

Rules of this file: seconds become ticks and are rounded up. Padding of events never matches, because its end is its start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from autoscaler.config.compiling_objective import hold_s, refill_s
from autoscaler.config.known_events import occurrences
from autoscaler.config.policy import Policy
from autoscaler.config.section import whole_ticks
from autoscaler.config.wishes import ForecastSection
from autoscaler.core.params import SCALE_IN_VMS, SeriesParams
from autoscaler.core.types import Float, Int


def compile_series(
    policies: Sequence[Policy], tick_s: float, now_s: float, run_s: float = 0.0
) -> SeriesParams:
    """Return the series of policies that `load_policies` has accepted, in their order.

    Args:
        policies: One per fleet.
        tick_s: Length of a tick, seconds.
        now_s: Epoch seconds; known events are compiled from one day before.
        run_s: Length of the run, seconds; known events are compiled until eight days after its end. 0 if the caller compiles
            again every day.
    """
    starts, ends, factors, odds = _events(policies, now_s, run_s)
    no_forecast = ForecastSection()
    laws = np.array([policy.objective is not None for policy in policies], np.bool_)
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
        refill_laws=np.array(
            [policy.objective is not None and policy.warm_pool.hibernate is not None for policy in policies],
            np.bool_,
        ),
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


def _floats(policies: Sequence[Policy], read: Callable[[Policy], float]) -> Float:
    return np.array([read(policy) for policy in policies], np.float64)


def _ticks(policies: Sequence[Policy], tick_s: float, read: Callable[[Policy], float]) -> Int:
    return np.array([whole_ticks(read(policy), tick_s) for policy in policies], np.int64)
