"""Bursts: demand that rose well above what is usual just now, and how long ago it did.

Demand without bursts is the mean of what does not exceed 1.6 times the median of the last half hour. A burst begins when
demand exceeds 1.6 times that by one and a half VMs, goes on while it exceeds 1.3 times, and is over after a
quiet minute. False alarms do no harm: laws are learned apart for each regime, so they stay honest.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.forecast.settings import QUIET_S, Settings
from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.types import Bool, Float, Int

_RISE, _STAY, _VMS = 1.6, 1.3, 1.5


def note(settings: Settings, state: SeriesState, demand: Float, ticks: int) -> Bool:
    """Follow the bursts. Returns bool (S,), where one begins now.

    Args:
        settings: Of the series.
        state: Updated in place.
        demand: float64 (S,), known.
        ticks: Since the last call.
    """
    dt = settings.params.tick_s * ticks
    room = _VMS * settings.unit
    base = state.base
    usual = np.minimum(demand, _RISE * state.median + room)
    usual -= base
    usual *= settings.base_alpha
    base += usual
    on = state.age_s > 0.0
    above = demand > np.where(on, _STAY, _RISE) * base + room
    state.quiet_s = quiet = np.where(above, 0.0, state.quiet_s + dt)
    state.age_s = np.where(above | (on & (quiet < QUIET_S)), state.age_s + dt, 0.0)
    onset: Bool = above & ~on
    return onset


def regime(settings: Settings, state: SeriesState) -> Int:
    """int64 (S,), 0 without a burst, else by its age."""
    found: Int = np.add.reduce(state.age_s[:, np.newaxis] > settings.ages_s, axis=1)
    return found
