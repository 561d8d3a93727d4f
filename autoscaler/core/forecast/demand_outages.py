"""Outages in demand: excludes the time between a sudden deep fall and the return from what counts as recent demand.

After an outage in front of a fleet, a series' recent minutes and hours describe the outage. Returning demand would look like a
thousandfold burst for as long as the median is low; after that the averages would draw the level down; and the next day, the same
time of the earlier day would predict another outage. So when demand falls in a way that `core.falls` doubts, the recent state is
set aside, and restored when demand returns: its distribution is then that of quiet times around the earlier level. If demand
overshoots, as with retries, that is a normal burst. The slots of the outage become unknown, and forecasts made during it get no
outcome. Demand that does not return within a day is the new normal, and then the slots of that time count as usual.

Rules of this file: until demand returns, everything else proceeds as if this module did not exist. Without such a fall, results are
bit-identical to those without this module.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.demand_falls import came_back, fell, uneventful
from autoscaler.core.forecast.settings import Settings
from autoscaler.core.forecast.state import MEANS, SEASONS, USUAL, SeriesState
from autoscaler.core.forecast.tracks import Stretch
from autoscaler.core.types import Bool, Float, Int

_RECENT_FIELDS = ("track", "paces", "base", "median", "short", "doubt")
"""Fields that are set aside, in `SeriesState.aside_...`."""
_OF_TRACK, _NEXT_STEP = slice(USUAL, MEANS.stop), SEASONS.stop - 1


def note(settings: Settings, state: SeriesState, samples: Stretch) -> int:
    """Detect deep falls and returns of demand, and set recent state aside or restore it.

    Args:
        settings: The settings of the series.
        state: The state before the first tick; updated in place.
        samples: T consecutive ticks.

    Returns:
        How many ticks may be processed together, at least 1. They end before the next deep fall or return, and later ticks
        have not been examined.
    """
    falls, tick, tick_s = state.falls, samples.tick, settings.params.tick_s
    fallen = fell(falls, tick, tick_s, _work(settings, state, samples, slice(1))[0])
    if len(fallen):
        _set_aside(settings, state, fallen, int(samples.now_s[0] // settings.slot_s))
    if np.count_nonzero(falls.before):
        back = came_back(falls, tick, tick_s, _work(settings, state, samples, slice(1))[0])
        back = back[(state.aside_slot[back] >= 0) & ~_is_high_next(settings, state, back)]
        if len(back):
            _restore(settings, state, back, tick)
    if len(samples.now_s) == 1:
        return 1
    return 1 + uneventful(falls, tick + 1, tick_s, _work(settings, state, samples, slice(1, None)))


def _work(
    settings: Settings, state: SeriesState, samples: Stretch, ticks: slice[int | None, int | None, None]
) -> Float:
    """Return demand in VMs, float64 (n, S); NaN if unknown."""
    work: Float = samples.demand[ticks] / settings.vm
    if samples.usable is None:
        return work
    # Censored demand is at least what is seen of it, so it has returned if that has.
    enough = (state.falls.before > 0.0) & (work >= state.falls.back)
    if samples.known is not None:
        enough &= samples.known[ticks]
    return np.where(samples.usable[ticks] | enough, work, np.nan)


def _is_high_next(settings: Settings, state: SeriesState, series: Int) -> Bool:
    """Return whether earlier days expect demand at the next step that counts as returned: bool (k,); False if unknown."""
    found: Bool = state.track[series, _NEXT_STEP] >= state.falls.back[series] * settings.vm[series]
    return found


def _set_aside(settings: Settings, state: SeriesState, series: Int, slot: int) -> None:
    """Set recent state aside; it will not be restored for series in which earlier days expected the fall."""
    by_clock = ~np.isnan(state.track[series, _NEXT_STEP]) & ~_is_high_next(settings, state, series)
    state.aside_slot[series] = np.where(by_clock, -1, slot)
    for name in _RECENT_FIELDS:
        getattr(state, f"aside_{name}")[series] = getattr(state, name)[series]


def _restore(settings: Settings, state: SeriesState, series: Int, tick: int) -> None:
    """Restore what was set aside, moved by what earlier days did meanwhile, and make the slots of the outage unknown."""
    paces = state.paces[series]
    state.track[series, _OF_TRACK] = state.aside_track[series, _OF_TRACK]
    for name in _RECENT_FIELDS[1:]:
        getattr(state, name)[series] = getattr(state, f"aside_{name}")[series]
    moved = _moved_meanwhile(state.paces[series], paces)
    paces[:, 0] = state.paces[series, 0] + moved
    state.paces[series] = paces
    scale, factor = settings.params.scale[series], np.exp(moved)
    for array in (*state.track.T[MEANS], state.base, state.median):
        array[series] = np.maximum((array[series] + scale) * factor - scale, 0.0)
    state.age_s[series] = 0.0
    state.slot_sum[series] = state.slot_count[series] = 0.0
    ring = state.issued.shape[1]
    for each in series.tolist():
        state.codes[each, np.arange(state.aside_slot[each], state.slot + 1) % settings.slots] = 0
        for group in settings.groups:
            first, end = int(state.falls.since[each]) // group.stride, tick // group.stride
            mine = np.arange(settings.horizons)[group.columns]
            if group.mine is not None:
                mine = mine[group.mine[each]]
            rows = np.arange(max(first, end - ring), end) % ring
            state.issued[each, rows[:, np.newaxis], mine] = np.nan


def _moved_meanwhile(was: Float, now: Float) -> Float:
    """Return how much the logarithm of demand moved meanwhile on average over earlier days: float64 (k,).

    Args:
        was: float64 (k, 1 + D), `SeriesState.paces` at the fall.
        now: float64 (k, 1 + D), the present ones.
    """
    moved = now[:, 1:] - was[:, 1:]
    known = ~np.isnan(moved)
    total: Float = np.add.accumulate(np.where(known, moved, 0.0), axis=1)[:, -1]
    total /= np.maximum(np.count_nonzero(known, axis=1), 1)
    return total
