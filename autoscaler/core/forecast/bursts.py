"""Burst detection: whether demand has risen well above its recent level, and how long ago.

Demand without bursts is the mean over about ten minutes of demand that is clipped at 1.6 times the median of the last half hour
plus one and a half VMs. A burst begins when demand exceeds 1.6 times that mean plus one and a half VMs, continues while it exceeds
1.3 times the mean plus as much, and ends after a quiet minute. False alarms do no harm: distributions are learned separately for
each regime, so they stay calibrated.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.forecast.settings import QUIET_S, Settings
from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.types import Bool, Float, Int

_RISE, _CONTINUE = np.array(1.6), np.array(1.3)
"""Factors on demand without bursts above which a burst begins, and above which it continues."""


def note(
    settings: Settings, state: SeriesState, demand: Float, median: Float, since: int
) -> tuple[Int, Bool | None]:
    """Follow the bursts over consecutive ticks.

    Args:
        settings: The settings of the series.
        state: Updated in place.
        demand: float64 (T, S), work per second, known.
        median: float64 (T, S), median of the latest slots before each tick.
        since: Ticks from the last call to the first of these.

    Returns:
        The regimes, int64 (T, S), 0 without a burst, else by its age; and bool (T, S), whether a burst begins, or None if
        none does.
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
    continues = demand > _CONTINUE * base + room
    if rises.size > 1 and rises.shape[1] == 1:
        return _find_bursts_of_one(settings, state, rises, continues)
    return _find_bursts(settings, state, rises, continues, since)


def _base(settings: Settings, was: Float, usual: Float) -> Float:
    """Return demand without bursts after each tick, float64 (T, S): the mean of `usual`, which is overwritten."""
    found = np.empty(usual.shape)
    if len(usual) > 1 and usual.shape[1] == 1:
        # On plain numbers, because numpy calls take far longer.
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


def _find_bursts(
    settings: Settings, state: SeriesState, rises: Bool, continues: Bool, since: int
) -> tuple[Int, Bool | None]:
    """Do the work of `note` if demand is high at some tick, or a burst is on.

    Args:
        settings: The settings of the series.
        state: Updated in place.
        rises: bool (T, S), whether demand is high enough for a burst to begin.
        continues: bool (T, S), whether it is high enough for a burst to continue.
        since: Ticks from the last call to the first of these.

    Returns:
        As `note`.
    """
    ages, onset = np.zeros(rises.shape), np.zeros(rises.shape, np.bool_)
    age, quiet = state.age_s, state.quiet_s
    is_on = np.count_nonzero(age) > 0
    dt = settings.params.tick_s * since
    for tick, any_rise in enumerate(np.logical_or.reduce(rises, axis=1).tolist()):
        if not is_on and not any_rise:
            quiet = quiet + dt
        else:
            on = age > 0.0
            above = np.where(on, continues[tick], rises[tick])
            quiet = np.where(above, 0.0, quiet + dt)
            np.greater(above, on, out=onset[tick])
            age = ages[tick] = np.where(above | (on & (quiet < QUIET_S)), age + dt, 0.0)
            is_on = np.count_nonzero(age) > 0
        dt = settings.params.tick_s
    state.age_s, state.quiet_s = age, quiet
    return regime(settings, ages), onset if np.count_nonzero(onset) else None


def _find_bursts_of_one(
    settings: Settings, state: SeriesState, rises: Bool, continues: Bool
) -> tuple[Int, Bool | None]:
    """Do the work of `_find_bursts` for a single series, on plain numbers."""
    ages, onset = np.zeros(rises.shape), np.zeros(rises.shape, np.bool_)
    age, quiet, dt = state.age_s.item(), state.quiet_s.item(), settings.params.tick_s
    for tick, (any_rise, goes_on) in enumerate(
        zip(rises[:, 0].tolist(), continues[:, 0].tolist(), strict=True)
    ):
        above = goes_on if age > 0.0 else any_rise
        quiet = 0.0 if above else quiet + dt
        if above and not age > 0.0:
            onset[tick] = True
        age = age + dt if above or (age > 0.0 and quiet < QUIET_S) else 0.0
        ages[tick] = age
    state.age_s, state.quiet_s = np.array([age]), np.array([quiet])
    return regime(settings, ages), onset if np.count_nonzero(onset) else None


def regime(settings: Settings, age_s: Float) -> Int:
    """Return the regimes for ages of bursts in seconds, of any shape: int64, 0 without a burst, else 1 to 5."""
    found: Int = np.add.reduce(age_s[..., np.newaxis] > settings.ages_s, axis=-1)
    return found
