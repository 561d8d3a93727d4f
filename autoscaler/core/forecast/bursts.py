"""Burst detection: whether demand has risen well above its recent level, and how long ago.

Demand without bursts is the mean of the values that do not exceed 1.6 times the median of the last half hour. A burst begins
when demand exceeds 1.6 times that by one and a half VMs, continues while it exceeds 1.3 times, and ends after a quiet minute.
False alarms do no harm: distributions are learned separately for each regime, so they stay calibrated.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.forecast.settings import QUIET_S, Settings
from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.types import Bool, Float, Int

_RISE, _STAY = np.array(1.6), np.array(1.3)


def note(
    settings: Settings, state: SeriesState, demand: Float, median: Float, since: int
) -> tuple[Int, Bool | None]:
    """Follow the bursts over some ticks.

    Args:
        settings: Of the series.
        state: Updated in place.
        demand: float64 (T, S), known.
        median: float64 (T, S), of the slots before each tick.
        since: Ticks from the last call to the first of these; the others follow each other.

    Returns:
        int64 (T, S), 0 without a burst, else by its age; and bool (T, S), where one begins, None for nowhere.
    """
    room = settings.burst_room
    usual = _RISE * median
    usual += room
    np.minimum(demand, usual, out=usual)
    base = _base(settings, state.base, usual)
    state.base = base[-1].copy()
    bound = _RISE * base
    bound += room
    rises = demand > bound
    if not np.count_nonzero(rises) and not np.count_nonzero(state.age_s):
        for tick in range(len(demand)):
            state.quiet_s = state.quiet_s + settings.params.tick_s * (1 if tick else since)
        return np.zeros(demand.shape, np.int64), None
    stays = demand > _STAY * base + room
    if rises.size > 1 and rises.shape[1] == 1:
        return _within_one(settings, state, rises, stays)
    return _within(settings, state, rises, stays, since)


def _base(settings: Settings, was: Float, usual: Float) -> Float:
    """The means without bursts, moved towards what is usual at each of some ticks: (T, S); `usual` is overwritten."""
    found = np.empty(usual.shape)
    if len(usual) > 1 and usual.shape[1] == 1:
        # Number by number, since numpy takes far longer for a call.
        mean, alpha, means = was.item(), settings.base_alpha.item(), []
        for value in usual[:, 0].tolist():
            mean += (value - mean) * alpha
            means.append(mean)
        found[:, 0] = means
        return found
    for value, base in zip(usual, found, strict=True):
        moved = np.subtract(value, was, out=value)
        moved *= settings.base_alpha
        was = np.add(was, moved, out=base)
    return found


def _within(
    settings: Settings, state: SeriesState, rises: Bool, stays: Bool, since: int
) -> tuple[Int, Bool | None]:
    """The same where demand is above 1.6 times and 1.3 times what is usual, bool (T, S), at some tick."""
    ages, onset = np.zeros(rises.shape), np.zeros(rises.shape, np.bool_)
    age, quiet = state.age_s, state.quiet_s
    is_on = np.count_nonzero(age) > 0
    dt = settings.params.tick_s * since
    for tick, any_rise in enumerate(np.logical_or.reduce(rises, axis=1).tolist()):
        if not is_on and not any_rise:
            quiet = quiet + dt
        else:
            on = age > 0.0
            above = np.where(on, stays[tick], rises[tick])
            quiet = np.where(above, 0.0, quiet + dt)
            np.greater(above, on, out=onset[tick])
            age = ages[tick] = np.where(above | (on & (quiet < QUIET_S)), age + dt, 0.0)
            is_on = np.count_nonzero(age) > 0
        dt = settings.params.tick_s
    state.age_s, state.quiet_s = age, quiet
    return regime(settings, ages), onset if np.count_nonzero(onset) else None


def _within_one(settings: Settings, state: SeriesState, rises: Bool, stays: Bool) -> tuple[Int, Bool | None]:
    """The same of one series, number by number."""
    ages, onset = np.zeros(rises.shape), np.zeros(rises.shape, np.bool_)
    age, quiet, dt = state.age_s.item(), state.quiet_s.item(), settings.params.tick_s
    for tick, (any_rise, stay) in enumerate(zip(rises[:, 0].tolist(), stays[:, 0].tolist(), strict=True)):
        above = stay if age > 0.0 else any_rise
        quiet = 0.0 if above else quiet + dt
        if above and not age > 0.0:
            onset[tick] = True
        age = age + dt if above or (age > 0.0 and quiet < QUIET_S) else 0.0
        ages[tick] = age
    state.age_s, state.quiet_s = np.array([age]), np.array([quiet])
    return regime(settings, ages), onset if np.count_nonzero(onset) else None


def regime(settings: Settings, age_s: Float) -> Int:
    """int64, 0 without a burst, else by its age: of ages of any shape."""
    found: Int = np.add.reduce(age_s[..., np.newaxis] > settings.ages_s, axis=-1)
    return found
