"""What earlier days and weeks contribute: the shape of a day, the change from day to day, and how far back data goes."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.forecast.settings import days_back, slot_count
from tests.core.builders import samples, series_params

TICK_S = 300.0
DAY = 288


def issued(values, tick_s=TICK_S):
    """Medians at the lead time of one tick, as issued at each tick."""
    params = series_params(tick_s=tick_s, lead=1, keep=2, hold=3, refill=24, half_life=5 * 86_400 / tick_s)
    state = SeriesState.empty(params)
    return np.array(
        [step(params, state, samples(at * tick_s, value)).at_lead[0, 0] for at, value in enumerate(values)]
    )


def test_steps_that_each_day_takes_are_expected_whatever_the_level():
    rng = np.random.default_rng(5)
    days = 12
    # Demand wanders by 3 % a tick, so no earlier day says how high it is; what is done by the clock is on top of it.
    wander = np.exp(np.cumsum(rng.normal(0.0, 0.03, days * DAY)) * 0.9)
    by_the_clock = np.tile(np.exp(rng.normal(0.0, 0.15, DAY)), days)
    values = 3000.0 * wander * by_the_clock
    found = issued(values)
    off = np.abs(np.log(found[:-1] / values[1:]))[8 * DAY :]
    # The wandering alone is off by 2.2 % on average, the last value by 17 %.
    assert np.mean(off) < 0.035


def test_a_day_of_the_week_is_known_after_some_weeks():
    rng = np.random.default_rng(6)
    hours = np.arange(10 * 168)
    # One day of the week has four busy hours, each week as noisy as the next.
    busy = (hours % 168 >= 100) & (hours % 168 < 104)
    values = 2000.0 * np.exp(rng.normal(0.0, 0.05, len(hours))) * np.where(busy, 2.0, 1.0)
    found = issued(values, 3600.0)
    begins = np.arange(6, 10) * 168 + 100
    assert np.mean(found[begins - 1] / 2000.0) > 1.3
    day_before = begins - 24
    assert np.mean(found[day_before - 1] / 2000.0) < 1.15


@pytest.mark.parametrize(
    ("tick_s", "farthest"), [(1.0, 7), (60.0, 7), (120.0, 14), (180.0, 21), (300.0, 28), (3600.0, 28)]
)
def test_longer_slots_reach_further_back_in_the_same_space(tick_s, farthest):
    params = series_params(tick_s=tick_s)
    assert days_back(params)[-1] == farthest
    assert slot_count(params) <= 10_084


def test_every_day_and_week_back_is_looked_at_once_it_is_there():
    params = series_params(tick_s=3600.0, lead=1, keep=2, hold=3, refill=24, half_life=120.0)
    state = SeriesState.empty(params)
    for at in range(29 * 24):
        step(params, state, samples(at * 3600.0, 1000.0 + at % 24))
    assert not np.isnan(state.paces).any()
